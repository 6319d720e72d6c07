#pragma once
// A folder of prepared data: token shards to train on and to validate on, tokens.json that says what they are, and the tokenizer's files.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/token_shard.h"
#include "data/tokenizer_info.h"

namespace penstock::data {

inline constexpr const char* kTokenManifest = "tokens.json";
inline constexpr const char* kTokenizerFolder = "tokenizer";  // inside: the files that made the tokens

struct SplitInfo {
  struct ShardInfo {
    std::string file;  // in the folder
    uint64_t bytes = 0, tokens = 0, documents = 0;
  };
  uint64_t tokens = 0, documents = 0, text_bytes = 0;
  std::vector<ShardInfo> shards;  // in order

  void add(const std::string& file, const ShardHeader& header);
};

struct TokenFolder {
  TokenizerInfo tokenizer;
  bool chat = false;  // whole conversations, parts of which are context
  SplitInfo train, validation;
};

[[nodiscard]] bool is_token_folder(const std::filesystem::path& folder);
[[nodiscard]] std::string to_json(const TokenFolder& folder);
// tokens.json only. kNotFound; kDataLoss naming file and key.
[[nodiscard]] Result<TokenFolder> read_token_folder(const std::filesystem::path& folder);
// The shards of a split, each of which agrees with tokens.json. Throws Error kNotFound or kDataLoss naming the file.
[[nodiscard]] std::vector<Shard> open_shards(const std::filesystem::path& folder, const TokenFolder& info, const SplitInfo& split);
// Reads every byte. Throws Error kDataLoss naming the first file whose checksum differs. `progress`: share of the bytes done.
void verify_token_folder(const std::filesystem::path& folder, const std::function<void(double)>& progress);

}  // namespace penstock::data
