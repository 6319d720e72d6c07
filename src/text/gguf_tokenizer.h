#pragma once
// The tokenizer and the chat template that a GGUF file carries in its metadata, and those of a Hugging Face directory as such metadata.
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "formats/gguf_config.h"
#include "formats/gguf_file.h"

namespace penstock::text {

struct TokenizerParts;

// Two kinds, by tokenizer.ggml.model: "gpt2", byte-level BPE whose way of cutting text tokenizer.ggml.pre names, and "llama", SentencePiece's merges by
// score. The ids are those of the Hugging Face tokenizer that the file was made from.
// Throws Error kDataLoss or kUnimplemented naming the file and the key: another kind, another way of cutting.
[[nodiscard]] std::shared_ptr<TokenizerParts> read_gguf_tokenizer(const formats::GgufHeader& header);

// The same as files of a Hugging Face directory, by name: tokenizer.json or tokenizer.model, and tokenizer_config.json with the chat template.
[[nodiscard]] std::map<std::string, std::string> tokenizer_files_of_gguf(const formats::GgufHeader& header);

// The special tokens that templates know ("bos_token", ...), as the file has them.
[[nodiscard]] std::map<std::string, std::string> special_tokens_of_gguf(const formats::GgufHeader& header);

// Metadata of the tokenizer and chat template of a Hugging Face directory. Ids without a token below `vocab_size` get a token that stands for nothing.
// Throws Error kUnimplemented naming what GGUF cannot say: a way of cutting text that has no name there, merges that no scores describe, unigrams.
[[nodiscard]] formats::GgufMetadata gguf_of_tokenizer(const std::filesystem::path& folder, int64_t vocab_size);

}  // namespace penstock::text
