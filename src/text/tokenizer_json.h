#pragma once
// tokenizer.json, as Hugging Face's `tokenizers` writes it.
#include <filesystem>
#include <memory>

namespace penstock::text {

struct TokenizerParts;

// Reads the tokenizer of a folder. Refuses whatever would make our ids differ from Hugging Face's.
// Throws Error kNotFound, kDataLoss or kUnimplemented.
[[nodiscard]] std::shared_ptr<TokenizerParts> read_tokenizer_json(const std::filesystem::path& folder);

}  // namespace penstock::text
