#pragma once
// tokenizer.model (SentencePiece) as a tokenizer.
#include <filesystem>
#include <memory>

namespace penstock::text {

struct TokenizerParts;

// Reads tokenizer.model (or spiece.model) of a folder; tokenizer_config.json, where present, says whether the begin and end tokens are added
// (add_bos_token, by default yes; add_eos_token, by default no). The ids are exactly those of the library `sentencepiece`.
// Throws Error kNotFound, kDataLoss or kUnimplemented.
[[nodiscard]] std::shared_ptr<TokenizerParts> read_tokenizer_model(const std::filesystem::path& folder);

}  // namespace penstock::text
