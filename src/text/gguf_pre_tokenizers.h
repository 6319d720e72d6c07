#pragma once
// How the byte-level tokenizers of GGUF files cut text, by the names of tokenizer.ggml.pre. For the .cpp files of this folder.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace penstock::text {

struct GgufPreTokenizer {
  std::string name;
  bool normalizes = false;      // to NFC
  bool ignores_merges = false;  // a piece that is a token is that token
  bool adds_begin = false;      // unless tokenizer.ggml.add_bos_token says otherwise
  nlohmann::ordered_json steps; // the pre_tokenizer of a tokenizer.json
};

// nullopt for a name that we do not know.
[[nodiscard]] std::optional<GgufPreTokenizer> gguf_pre_tokenizer(const std::string& name);
// "gpt-2, llama-bpe, ...".
[[nodiscard]] std::string known_gguf_pre_tokenizers();
// The one that cuts text as this tokenizer.json does; nullopt when none does.
[[nodiscard]] std::optional<GgufPreTokenizer> gguf_pre_tokenizer_of(const nlohmann::json& tokenizer);

}  // namespace penstock::text
