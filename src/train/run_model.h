#pragma once
// The model of a training run before its parameters are made: of the shape in the configuration, or that of a Hugging Face directory.
#include <memory>

#include "config/train_config.h"
#include "model/stored_weights.h"
#include "model/transformer_config.h"
#include "text/tokenizer.h"
#include "train/model_description.h"

namespace penstock::train {

struct RunModel {
  model::TransformerConfig config;
  text::Tokenizer tokenizer;
  ModelDescription description;
  tensor::ScalarType dtype;                             // of the weights that are written at the end
  std::shared_ptr<const model::StoredWeights> weights;  // what training starts from; null: from noise
};

// Throws Error: kNotFound, kDataLoss, kUnimplemented of the directory's files; kInvalidArgument when a key of the shape disagrees with the
// directory (both values), the sequence is longer than the model can take, or the tokenizer has more tokens than the model.
[[nodiscard]] RunModel open_run_model(const config::TrainConfig& config);

}  // namespace penstock::train
