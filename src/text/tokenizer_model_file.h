#pragma once
// tokenizer.model (SentencePiece) as a tokenizer.
#include <filesystem>
#include <memory>
#include <string>

namespace penstock::text {

struct SentencePieceFile;
struct TokenizerParts;

// tokenizer.model (or spiece.model) of a folder, with the tokens that were added to it: those of "added_tokens_decoder" in tokenizer_config.json, else of
// added_tokens.json. Which tokens begin and end a text is tokenizer_config.json's to say, where it names tokens that there are.
// Throws Error kNotFound, kDataLoss or kUnimplemented (ids without tokens).
[[nodiscard]] SentencePieceFile sentencepiece_of_folder(const std::filesystem::path& folder);

// Reads such a folder; tokenizer_config.json, where present, says whether the begin and end tokens are added
// (add_bos_token, by default yes; add_eos_token, by default no). The ids are exactly those of the library `sentencepiece`.
// Throws Error kNotFound, kDataLoss or kUnimplemented.
[[nodiscard]] std::shared_ptr<TokenizerParts> read_tokenizer_model(const std::filesystem::path& folder);
// Of such a file, without tokens that are added around a text. `where` begins messages.
[[nodiscard]] std::shared_ptr<TokenizerParts> tokenizer_of(SentencePieceFile file, const std::string& where);

}  // namespace penstock::text
