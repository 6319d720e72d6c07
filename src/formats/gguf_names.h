#pragma once
// Which tensor of a GGUF file is which tensor of a Hugging Face checkpoint, and how the two lie.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/gguf_file.h"

namespace penstock::formats {

// What the names and places depend on.
struct GgufShape {
  std::string architecture;  // "llama", "qwen2", "qwen3", "gpt2"
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
};

// "gpt2, llama, ...".
[[nodiscard]] std::string known_gguf_architectures();
// Throws Error kUnimplemented for an architecture that we do not know, naming it; kDataLoss for keys that are missing or wrong.
[[nodiscard]] GgufShape gguf_shape(const GgufHeader& header);

// Note [Rotary pairs]
// In Hugging Face's checkpoints the pair of row i of a query or key head is row i + K/2; so it is here. llama.cpp's architecture "llama" turns
// neighbours, and its files hold the rows of each head in that order: 0, K/2, 1, K/2 + 1, ... Its other architectures keep Hugging Face's order.
struct GgufPlace {
  std::string name;       // in the GGUF file
  int64_t num_heads = 0;  // > 0: the rows of so many heads, in llama's order
  bool transposed = false;
};

// Where the tensor of a Hugging Face checkpoint is in a GGUF file; nullopt for one that has no place there.
[[nodiscard]] std::optional<GgufPlace> gguf_place(const GgufShape& shape, const std::string& hugging_face_name);
// The reverse: the name in a Hugging Face checkpoint. nullopt for one that we do not know.
[[nodiscard]] std::optional<std::string> hugging_face_name(const GgufShape& shape, const std::string& gguf_name);

// Rows of equal size, of `num_heads` heads, from llama's order to Hugging Face's and back. REQUIRES: an even number of rows in each head.
[[nodiscard]] std::vector<std::byte> rows_from_llama(std::span<const std::byte> bytes, int64_t rows, int64_t num_heads);
[[nodiscard]] std::vector<std::byte> rows_to_llama(std::span<const std::byte> bytes, int64_t rows, int64_t num_heads);

}  // namespace penstock::formats
