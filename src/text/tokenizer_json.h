#pragma once
// tokenizer.json, as Hugging Face's `tokenizers` writes it.
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace penstock::text {

struct TokenizerParts;

// Reads the tokenizer of a folder. Refuses whatever would make our ids differ from Hugging Face's.
// Throws Error kNotFound, kDataLoss or kUnimplemented.
[[nodiscard]] std::shared_ptr<TokenizerParts> read_tokenizer_json(const std::filesystem::path& folder);
// Of a document that calls itself `file` in messages, without the tokens that begin and end a text.
[[nodiscard]] std::shared_ptr<TokenizerParts> read_tokenizer_document(const nlohmann::json& document, const std::string& file);

}  // namespace penstock::text
