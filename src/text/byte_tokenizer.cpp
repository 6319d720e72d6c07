// The tokenizer of models that are trained on bytes, and its files.
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "text/bpe_model.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"
#include "text/tokenizer_parts.h"

namespace penstock::text {
namespace {

constexpr int32_t kEndId = 256;
constexpr const char* kEndText = "<|end|>";

}  // namespace

Tokenizer byte_tokenizer() {
  auto parts = std::make_shared<TokenizerParts>();
  auto vocabulary = std::make_shared<Vocabulary>();
  for (int byte = 0; byte < 256; ++byte) {
    parts->tokens.push_back({std::string(1, static_cast<char>(byte))});
    vocabulary->add(byte, parts->tokens.back().bytes, "the byte tokenizer");
  }
  parts->tokens.push_back({kEndText, true});
  parts->raw_added.add({.id = kEndId, .content = kEndText, .special = true});
  parts->added_ids[kEndText] = parts->end_id = kEndId;
  parts->byte_level = true;
  parts->model = std::make_unique<BpeModel>(vocabulary, std::vector<BpeMerge>(), BpeOptions{.bytes = true});
  parts->vocabulary = std::move(vocabulary);
  return Tokenizer(std::move(parts));
}

void write_tokenizer_files(const std::filesystem::path& folder) {
  using Ordered = nlohmann::ordered_json;
  Ordered vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[byte_symbol(static_cast<unsigned char>(byte))] = byte;
  const Ordered end_flags = {{"content", kEndText}, {"single_word", false}, {"lstrip", false},
                             {"rstrip", false},     {"normalized", false},  {"special", true}};
  Ordered end_token = {{"id", kEndId}};
  end_token.update(end_flags);
  const Ordered byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  const Ordered tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", Ordered::array({end_token})},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocab},
        {"merges", Ordered::array()}}},
  };
  const Ordered config = {
      {"added_tokens_decoder", {{std::to_string(kEndId), end_flags}}},
      {"add_prefix_space", false},
      {"clean_up_tokenization_spaces", false},
      {"eos_token", kEndText},
      {"tokenizer_class", "PreTrainedTokenizerFast"},
  };
  const Ordered special = {{"eos_token", kEndText}};
  write_file_atomic(folder / "tokenizer.json", tokenizer.dump(1) + "\n");
  write_file_atomic(folder / "tokenizer_config.json", config.dump(2) + "\n");
  write_file_atomic(folder / "special_tokens_map.json", special.dump(2) + "\n");
}

}  // namespace penstock::text
