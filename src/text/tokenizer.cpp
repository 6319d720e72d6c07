#include "text/tokenizer.h"

#include "base/file.h"
#include "text/byte_alphabet.h"
#include "text/json_input.h"

namespace penstock::text {

using Json = nlohmann::json;

namespace {

constexpr size_t kFileLimit = 64 << 20;  // bytes
constexpr int32_t kMaxVocabulary = 1 << 20;  // a larger id would only make us allocate
constexpr int32_t kEndId = 256;
constexpr const char* kEndText = "<|end|>";

const Json* member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

// The "type" of a part of tokenizer.json; empty when the part is absent or null.
std::string type_of(const Json& document, const char* part) {
  const Json* object = member(document, part);
  if (object == nullptr) return "";
  const Json* type = member(*object, "type");
  return type != nullptr && type->is_string() ? type->get<std::string>() : "unnamed";
}

bool is_true(const Json* value) { return value != nullptr && value->is_boolean() && value->get<bool>(); }

}  // namespace

// Builds a Tokenizer of the two files, refusing whatever would make our ids differ from Hugging Face's.
class TokenizerReader {
 public:
  explicit TokenizerReader(std::string file) : file_(std::move(file)) {}

  // Each step throws Error.
  Tokenizer read(const Json& document, const Json& config) {
    require_supported(document);
    read_added_tokens(document);
    read_vocabulary(document);
    for (size_t id = 0; id < filled_.size(); ++id) {
      if (!filled_[id]) throw error(Code::kDataLoss, "{}: id {} has no token", file_, id);
    }
    for (size_t byte = 0; byte < 256; ++byte) {
      if (tokenizer_.id_of_byte_[byte] < 0) throw error(Code::kDataLoss, "{}: byte 0x{:02x} has no token in model.vocab", file_, byte);
    }
    read_end(config);
    return std::move(tokenizer_);
  }

 private:
  void require_supported(const Json& document) const {
    const Json* model = member(document, "model");
    if (model == nullptr) throw error(Code::kDataLoss, "{}: expected an object with a 'model', found none", file_);
    if (const std::string type = type_of(document, "model"); type != "BPE") throw unimplemented(fmt::format("model type '{}'", type));
    const Json* merges = member(*model, "merges");
    if (merges != nullptr && !merges->empty()) throw unimplemented(fmt::format("merges ({} of them)", merges->size()));
    if (is_true(member(*model, "byte_fallback"))) throw unimplemented("byte_fallback");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      const Json* text = member(*model, key);
      if (text != nullptr && *text != "") throw unimplemented(key);
    }
    if (member(document, "normalizer") != nullptr) throw unimplemented(fmt::format("normalizer '{}'", type_of(document, "normalizer")));
    for (const char* part : {"pre_tokenizer", "decoder"}) {
      if (const std::string type = type_of(document, part); type != "ByteLevel") throw unimplemented(fmt::format("{} '{}'", part, type));
    }
    const Json* prefix = member(document.at("pre_tokenizer"), "add_prefix_space");
    if (prefix == nullptr || is_true(prefix)) throw unimplemented("pre_tokenizer with add_prefix_space");
    const std::string post = type_of(document, "post_processor");
    if (!post.empty() && post != "ByteLevel") throw unimplemented(fmt::format("post_processor '{}'", post));
  }

  void read_added_tokens(const Json& document) {
    tokenizer_.id_of_byte_.fill(-1);
    const Json* added = member(document, "added_tokens");
    if (added == nullptr) return;
    for (const Json& token : *added) {
      const Json* content = member(token, "content");
      const Json* id = member(token, "id");
      if (content == nullptr || !content->is_string() || id == nullptr) {
        throw error(Code::kDataLoss, "{}: added_tokens: expected an 'id' and a 'content', found {}", file_, shown(token));
      }
      if (!is_true(member(token, "special"))) throw unimplemented(fmt::format("added token {} that is not special", shown(*content)));
      place(*id, content->get<std::string>(), true);
    }
  }

  void read_vocabulary(const Json& document) {
    const Json* vocab = member(document.at("model"), "vocab");
    if (vocab == nullptr || !vocab->is_object()) throw error(Code::kDataLoss, "{}: expected an object model.vocab", file_);
    for (const auto& [symbol, id] : vocab->items()) {
      if (is_special(symbol, id)) continue;  // some vocabularies list their special tokens too
      const auto byte = byte_of_symbol(symbol);
      if (!byte) throw unimplemented(fmt::format("vocabulary entry {} that is not one byte", shown(symbol)));
      place(id, std::string(1, static_cast<char>(*byte)), false);
      tokenizer_.id_of_byte_[*byte] = id.get<int32_t>();
    }
  }

  [[nodiscard]] bool is_special(const std::string& content, const Json& id) const {
    for (size_t i = 0; i < tokenizer_.tokens_.size(); ++i) {
      if (tokenizer_.tokens_[i].special && tokenizer_.tokens_[i].bytes == content) return id == i;
    }
    return false;
  }

  void read_end(const Json& config) {
    const Json* end = member(config, "eos_token");
    if (end != nullptr && end->is_object()) end = member(*end, "content");
    if (end == nullptr) return;
    for (size_t id = 0; id < tokenizer_.tokens_.size(); ++id) {
      if (tokenizer_.tokens_[id].special && *end == tokenizer_.tokens_[id].bytes) tokenizer_.end_id_ = static_cast<int32_t>(id);
    }
    if (tokenizer_.end_id_ < 0)
      throw error(Code::kDataLoss, "{}: the eos_token {} of tokenizer_config.json is no special token", file_, shown(*end));
  }

  void place(const Json& id, std::string bytes, bool special) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= kMaxVocabulary) {
      throw error(Code::kDataLoss, "{}: expected a token id from 0 to {}, found {}", file_, kMaxVocabulary - 1, shown(id));
    }
    const auto index = id.get<size_t>();
    if (index >= tokenizer_.tokens_.size()) {
      tokenizer_.tokens_.resize(index + 1);
      filled_.resize(index + 1);
    }
    if (filled_[index]) throw error(Code::kDataLoss, "{}: id {} has two tokens", file_, index);
    filled_[index] = true;
    tokenizer_.tokens_[index] = {std::move(bytes), special};
  }

  [[nodiscard]] Error unimplemented(const std::string& part) const {
    return error(Code::kUnimplemented, "{}: {} not supported yet; only byte-level tokenizers without merges are", file_, part);
  }

  std::string file_;
  Tokenizer tokenizer_;
  std::vector<bool> filled_;
};

namespace {

Result<Json> read_json(const std::filesystem::path& path) {
  Result<std::string> text = read_file(path, kFileLimit);
  if (!text) return text.error();
  return parse_json(*text, path.string(), Code::kDataLoss);
}

}  // namespace

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "tokenizer.json";
  Result<Json> document = read_json(file);
  if (!document) return document.error();
  Result<Json> config = read_json(folder / "tokenizer_config.json");
  if (!config && config.error().code() != Code::kNotFound) return config.error();
  try {
    return TokenizerReader(file.string()).read(*document, config ? *config : Json::object());
  } catch (const Error& e) {
    return e;
  } catch (const Json::exception& e) {
    return error(Code::kDataLoss, "{}: {}", file.string(), e.what());
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size());
  for (const char byte : text) ids.push_back(id_of_byte_[static_cast<unsigned char>(byte)]);
  return ids;
}

std::string_view Tokenizer::bytes_of(int32_t id, SpecialTokens special) const {
  if (id < 0 || id >= vocab_size()) return {};
  const Token& token = tokens_[static_cast<size_t>(id)];
  if (token.special && special == SpecialTokens::kSkip) return {};
  return token.bytes;
}

Tokenizer byte_tokenizer() {
  Tokenizer tokenizer;
  for (int byte = 0; byte < 256; ++byte) {
    tokenizer.tokens_.push_back({std::string(1, static_cast<char>(byte)), false});
    tokenizer.id_of_byte_[static_cast<size_t>(byte)] = byte;
  }
  tokenizer.tokens_.push_back({kEndText, true});
  tokenizer.end_id_ = kEndId;
  return tokenizer;
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
