#pragma once
// What a training run reads: a prepared folder, or text that is turned into tokens at the start.
#include <filesystem>
#include <memory>

#include "config/train_config.h"
#include "data/token_stream.h"
#include "data/tokenizer_info.h"

namespace penstock::data {

struct Corpus {
  std::unique_ptr<const TokenStream> train, validation;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::filesystem::path tokenizer_folder;  // its files; empty = bytes
  bool chat = false;                       // documents are conversations, to be kept apart
};

// The tokenizer that a new model takes with these data: that of a prepared folder, or empty = bytes.
[[nodiscard]] std::filesystem::path tokenizer_folder_of(const config::TrainDataConfig& data);

// `data.path`: one folder that `penstock data prepare` made, of which only headers are read yet; else files and folders of text, all in memory.
// `model_tokenizer`: the directory of a model that is trained further; empty = the prepared folder's own tokenizer, and bytes for text.
// The same files give the same corpus on every rank.
// Errors: kNotFound, kInvalidArgument (no text, more than 4 GiB, data of another tokenizer than the model's), kDataLoss (a damaged folder) naming
// the path.
[[nodiscard]] Result<Corpus> open_corpus(const config::TrainDataConfig& data, const std::filesystem::path& model_tokenizer = {});

}  // namespace penstock::data
