#pragma once
// The layers of a stored model, as the pipeline cuts them.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/safetensors_header.h"

namespace penstock::plan {

struct ModelLayer {
  std::string name;  // "model.embed_tokens", "model.layers.3", "lm_head"
  std::string type;  // Embedding, DecoderBlock, Head
  int64_t parameters = 0;
  int64_t bytes = 0;  // as stored
};

// Embedding, the numbered blocks in order, and the head with the last norm. Blocks are tensors named PREFIX.NUMBER.REST (as in Llama's
// model.layers.0. or GPT-2's h.0.). A head that shares the embedding's table counts its own copy of it: the last stage holds one.
// kInvalidArgument when there are no blocks, or numbers are missing.
[[nodiscard]] Result<std::vector<ModelLayer>> layers_of_model(std::span<const formats::TensorEntry> tensors);

}  // namespace penstock::plan
