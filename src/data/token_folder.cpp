#include "data/token_folder.h"

#include <charconv>

#include "base/file.h"
#include "text/json_input.h"

namespace penstock::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "penstock token shards";
constexpr int kVersion = 1;
constexpr size_t kManifestLimit = 256 << 20;  // a million shards

Json json_of(const SplitInfo& split) {
  Json shards = Json::array();
  for (const auto& shard : split.shards) {
    shards.push_back({{"file", shard.file}, {"bytes", shard.bytes}, {"tokens", shard.tokens}, {"documents", shard.documents}});
  }
  return {{"tokens", split.tokens}, {"documents", split.documents}, {"text_bytes", split.text_bytes}, {"shards", std::move(shards)}};
}

// The members of one object, with the file's name in every message.
class Reader {
 public:
  Reader(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw error(Code::kDataLoss, "{}: expected an object, found {}", where_, text::shown(object));
  }
  template <typename T>
  [[nodiscard]] T number(const char* key) const {
    const nlohmann::json& value = at(key);
    if (!value.is_number_integer()) throw wrong(key, "an integer", value);
    return value.get<T>();
  }
  [[nodiscard]] std::string text(const char* key) const {
    const nlohmann::json& value = at(key);
    if (!value.is_string()) throw wrong(key, "a text", value);
    return value.get<std::string>();
  }
  [[nodiscard]] const nlohmann::json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) throw error(Code::kDataLoss, "{}: expected a key '{}', found none", where_, key);
    return *found;
  }
  [[nodiscard]] std::string inside(const char* key) const { return fmt::format("{}: {}", where_, key); }
  [[nodiscard]] Error wrong(const char* key, const char* expected, const nlohmann::json& found) const {
    return error(Code::kDataLoss, "{}: key '{}': expected {}, found {}", where_, key, expected, text::shown(found));
  }

 private:
  const nlohmann::json& object_;
  const std::string where_;
};

SplitInfo split_of(const Reader& parent, const char* key) {
  const Reader in(parent.at(key), parent.inside(key));
  SplitInfo split{in.number<uint64_t>("tokens"), in.number<uint64_t>("documents"), in.number<uint64_t>("text_bytes"), {}};
  const nlohmann::json& shards = in.at("shards");
  if (!shards.is_array()) throw in.wrong("shards", "a list", shards);
  uint64_t tokens = 0;
  for (const nlohmann::json& item : shards) {
    const Reader shard(item, in.inside("shards"));
    split.shards.push_back({shard.text("file"), shard.number<uint64_t>("bytes"), shard.number<uint64_t>("tokens"), shard.number<uint64_t>("documents")});
    tokens += split.shards.back().tokens;
    const std::string& file = split.shards.back().file;
    if (file.empty() || file.find('/') != std::string::npos || file == "..") throw shard.wrong("file", "a file name", file);
  }
  if (tokens != split.tokens) throw in.wrong("tokens", fmt::format("{} as its shards have", tokens).c_str(), split.tokens);
  return split;
}

TokenFolder folder_of(const nlohmann::json& document, const std::string& file) {
  const Reader in(document, file);
  if (in.text("format") != kFormat) throw in.wrong("format", fmt::format("\"{}\"", kFormat).c_str(), in.at("format"));
  if (in.number<int64_t>("version") != kVersion) throw in.wrong("version", fmt::format("{}; prepare the data again", kVersion).c_str(), in.at("version"));
  const Reader tokenizer(in.at("tokenizer"), in.inside("tokenizer"));
  TokenFolder folder;
  folder.tokenizer = {tokenizer.number<int>("vocab_size"), tokenizer.number<int32_t>("end_id"), 0};
  const std::string fingerprint = tokenizer.text("fingerprint");
  const auto parsed = std::from_chars(fingerprint.data(), fingerprint.data() + fingerprint.size(), folder.tokenizer.fingerprint, 16);
  if (parsed.ptr != fingerprint.data() + fingerprint.size() || parsed.ec != std::errc()) throw tokenizer.wrong("fingerprint", "a hexadecimal number", fingerprint);
  folder.chat = in.text("kind") == "chat";
  folder.train = split_of(in, "train");
  folder.validation = split_of(in, "validation");
  return folder;
}

}  // namespace

void SplitInfo::add(const std::string& file, const ShardHeader& header) {
  shards.push_back({file, header.file_bytes(), header.tokens, header.documents});
  tokens += header.tokens;
  documents += header.documents;
  text_bytes += header.text_bytes;
}

bool is_token_folder(const fs::path& folder) {
  std::error_code failed;
  return fs::is_regular_file(folder / kTokenManifest, failed);
}

std::string to_json(const TokenFolder& folder) {
  const Json out = {
      {"format", kFormat},
      {"version", kVersion},
      {"kind", folder.chat ? "chat" : "text"},
      {"tokenizer",
       {{"vocab_size", folder.tokenizer.vocab_size}, {"end_id", folder.tokenizer.end_id}, {"fingerprint", fmt::format("{:016x}", folder.tokenizer.fingerprint)}}},
      {"train", json_of(folder.train)},
      {"validation", json_of(folder.validation)},
  };
  return out.dump(1) + "\n";
}

Result<TokenFolder> read_token_folder(const fs::path& folder) {
  const fs::path file = folder / kTokenManifest;
  const auto text = read_file(file, kManifestLimit);
  if (!text && text.error().code() == Code::kNotFound) {
    return error(Code::kNotFound, "{}: no prepared data: expected {} in it; `penstock data prepare` makes such folders", folder.string(), kTokenManifest);
  }
  if (!text) return text.error();
  const auto document = text::parse_json(text.value(), file.string(), Code::kDataLoss);
  if (!document) return document.error();
  try {
    return folder_of(document.value(), file.string());
  } catch (const Error& wrong) {
    return wrong;
  }
}

std::vector<Shard> open_shards(const fs::path& folder, const TokenFolder& info, const SplitInfo& split) {
  std::vector<Shard> shards;
  for (const auto& expected : split.shards) {
    Shard shard = Shard::open(folder / expected.file).value();
    const ShardHeader& found = shard.header();
    if (found.tokens != expected.tokens || found.documents != expected.documents) {
      throw error(Code::kDataLoss, "{}: {} tokens in {} documents, expected {} in {} as {} says; the folder's files are not of one preparation", shard.path(),
                  found.tokens, found.documents, expected.tokens, expected.documents, kTokenManifest);
    }
    if (found.fingerprint != info.tokenizer.fingerprint) {
      throw error(Code::kDataLoss, "{}: made by another tokenizer ({:016x}) than {} says ({:016x})", shard.path(), found.fingerprint, kTokenManifest,
                  info.tokenizer.fingerprint);
    }
    if (found.tokens > 0 && static_cast<int64_t>(found.largest_id) >= info.tokenizer.vocab_size) {
      throw error(Code::kDataLoss, "{}: token id {} with a vocabulary of {}", shard.path(), found.largest_id, info.tokenizer.vocab_size);
    }
    shards.push_back(std::move(shard));
  }
  return shards;
}

void verify_token_folder(const fs::path& folder, const std::function<void(double)>& progress) {
  const TokenFolder info = read_token_folder(folder).value();
  if (const TokenizerInfo found = describe(*open_tokenizer(folder / kTokenizerFolder)); found != info.tokenizer) {
    throw error(Code::kDataLoss, "{}: not the tokenizer that made the tokens: fingerprint {:016x}, vocabulary of {}, expected {:016x}, {}", (folder / kTokenizerFolder).string(), found.fingerprint,
                found.vocab_size, info.tokenizer.fingerprint, info.tokenizer.vocab_size);
  }
  uint64_t total = 0, done = 0;
  for (const SplitInfo* split : {&info.train, &info.validation}) {
    for (const auto& shard : split->shards) total += shard.bytes;
  }
  for (const SplitInfo* split : {&info.train, &info.validation}) {
    for (const Shard& shard : open_shards(folder, info, *split)) {
      done += ShardHeader::kBytes;
      shard.verify([&](uint64_t bytes) {
        done += bytes;
        progress(static_cast<double>(done) / static_cast<double>(total));
      });
    }
  }
}

}  // namespace penstock::data
