#include "text/tokenizer.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "formats/gguf_model.h"
#include "text/byte_alphabet.h"
#include "text/characters.h"
#include "text/end_tokens.h"
#include "text/gguf_tokenizer.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model_file.h"
#include "text/tokenizer_parts.h"

namespace penstock::text {

namespace fs = std::filesystem;

Tokenizer::Tokenizer(std::shared_ptr<TokenizerParts> parts) {
  parts->raw_added.add({.id = kNoToken, .content = std::string(kTokenBreak), .special = true});
  auto& ends = parts->end_ids;
  if (parts->end_id != kNoToken && std::ranges::find(ends, parts->end_id) == ends.end()) ends.push_back(parts->end_id);
  parts_ = std::move(parts);
}

Result<Tokenizer> Tokenizer::load(const fs::path& folder) {
  try {
    if (const auto gguf = formats::find_gguf(folder)) return Tokenizer(read_gguf_tokenizer(formats::read_gguf_header(*gguf)));
    const auto of_folder = [&](std::shared_ptr<TokenizerParts> parts) {
      parts->end_ids = end_ids_of_folder(folder);
      return Tokenizer(std::move(parts));
    };
    std::error_code failed;
    if (fs::exists(folder / "tokenizer.json", failed)) return of_folder(read_tokenizer_json(folder));
    if (fs::exists(folder / "tokenizer.model", failed) || fs::exists(folder / "spiece.model", failed)) return of_folder(read_tokenizer_model(folder));
    return error(Code::kNotFound, "{}: expected tokenizer.json or tokenizer.model, found neither", folder.string());
  } catch (const Error& e) {
    return e;
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  encode_to(text, options, ids);
  return ids;
}

void Tokenizer::encode_to(std::string_view text, const EncodeOptions& options, std::vector<int32_t>& ids) const {
  const bool special = options.parse_special_tokens;
  if (options.add_special_tokens) ids.insert(ids.end(), parts_->before.begin(), parts_->before.end());
  size_t bad = find_invalid_utf8(text);
  if (bad != std::string_view::npos && !(parts_->byte_level && parts_->normalizer.empty())) {
    Utf8Stream characters;
    std::string valid = characters.feed(text);
    valid += characters.flush();
    encode_valid(valid, special, ids);
  } else {
    for (; bad != std::string_view::npos; bad = find_invalid_utf8(text)) {
      encode_valid(text.substr(0, bad), special, ids);
      parts_->model->encode(text.substr(bad, 1), ids);
      text.remove_prefix(bad + 1);
    }
    encode_valid(text, special, ids);
  }
  if (options.add_special_tokens) ids.insert(ids.end(), parts_->after.begin(), parts_->after.end());
}

void Tokenizer::encode_valid(std::string_view text, bool special, std::vector<int32_t>& ids) const {
  const auto take_token = [&](int32_t id) {
    if (id != kNoToken) ids.push_back(id);  // kTokenBreak
  };
  std::string storage;
  Pieces pieces;
  const auto take_section = [&](size_t begin, size_t end) {
    const std::string_view normal = parts_->normalizer.normalize(text.substr(begin, end - begin), storage);
    const auto take_text = [&](size_t from, size_t to) {
      parts_->pre_tokenizer.split(normal.substr(from, to - from), begin == 0 && from == 0, pieces);
      for (const std::string_view piece : pieces.views) parts_->model->encode(piece, ids);
    };
    parts_->normalized_added.split(normal, special, take_text, take_token);
  };
  parts_->raw_added.split(text, special, take_section, take_token);
}

std::string Tokenizer::guarded(std::string_view text) const {
  const auto guard = [&](auto is_special) {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      (void)next_character(text, at);
      out += text.substr(begin, at - begin);
      if (is_special(begin)) out += kTokenBreak;
    }
    return out;
  };
  std::string out = guard([&](size_t at) { return parts_->raw_added.special_at(text, at) || parts_->normalized_added.special_at(text, at); });
  if (parts_->normalized_added.empty()) return out;
  // Look-alikes that only the normalizer turns into a token, such as full-width letters: where they are in the raw text is not known.
  std::string storage;
  const std::string_view normal = parts_->normalizer.normalize(out, storage);
  for (size_t at = 0; at < normal.size(); ++at) {
    if (parts_->normalized_added.special_at(normal, at)) return guard([](size_t) { return true; });
  }
  return out;
}

int Tokenizer::vocab_size() const { return static_cast<int>(parts_->tokens.size()); }
int32_t Tokenizer::begin_id() const { return parts_->begin_id; }
int32_t Tokenizer::end_id() const { return parts_->end_id; }
std::span<const int32_t> Tokenizer::end_ids() const { return parts_->end_ids; }

bool Tokenizer::is_special(int32_t id) const { return id >= 0 && id < vocab_size() && parts_->tokens[static_cast<size_t>(id)].special; }

int32_t Tokenizer::id_of(std::string_view token) const {
  if (const auto added = parts_->added_ids.find(token); added != parts_->added_ids.end()) return added->second;
  if (!parts_->byte_level) return parts_->vocabulary->find(token);
  if (find_invalid_utf8(token) != std::string_view::npos) return kNoToken;
  const auto bytes = bytes_of_symbols(token);
  return bytes ? parts_->vocabulary->find(*bytes) : kNoToken;
}

std::string_view Tokenizer::bytes_of(int32_t id, SpecialTokens special) const {
  if (id < 0 || id >= vocab_size()) return {};
  const TokenizerParts::Token& token = parts_->tokens[static_cast<size_t>(id)];
  if (token.special && special == SpecialTokens::kSkip) return {};
  return token.bytes;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, SpecialTokens special) const {
  StreamDecoder decoder(*this, special);
  std::string text;
  for (const int32_t id : ids) text += decoder.feed(id);
  return text + decoder.flush();
}

StreamDecoder::StreamDecoder(Tokenizer tokenizer, SpecialTokens special, bool at_start)
    : tokenizer_(std::move(tokenizer)), special_(special), at_start_(at_start), strips_left_(tokenizer_.parts_->start.count) {}

std::string StreamDecoder::feed(int32_t id) {
  std::string_view bytes = tokenizer_.bytes_of(id, special_);
  if (!at_start_ || (special_ == SpecialTokens::kSkip && tokenizer_.is_special(id))) return characters_.feed(bytes);
  const StartRule& rule = tokenizer_.parts_->start;
  std::string kept;
  switch (rule.kind) {
    case StartRule::kNothing:
      break;
    case StartRule::kStripText:
      for (; strips_left_ > 0 && bytes.starts_with(' '); --strips_left_) bytes.remove_prefix(1);
      break;
    case StartRule::kDropFromFirst:
      at_start_ = false;
      if (id < 0 || id >= tokenizer_.vocab_size() || !tokenizer_.parts_->tokens[static_cast<size_t>(id)].stripped) break;
      std::copy_if(bytes.begin(), bytes.end(), std::back_inserter(kept), [](char byte) { return byte != ' '; });
      return characters_.feed(kept);
    case StartRule::kStripEveryToken:
      if (id >= 0 && id < tokenizer_.vocab_size() && !tokenizer_.parts_->tokens[static_cast<size_t>(id)].stripped) break;
      if (strips_left_ > 0 && bytes.starts_with(' ')) {
        bytes.remove_prefix(1);
        --strips_left_;
      }
      break;
  }
  if (!bytes.empty()) at_start_ = false;
  return characters_.feed(bytes);
}

std::string StreamDecoder::flush() { return characters_.flush(); }

std::vector<fs::path> tokenizer_files(const fs::path& folder) {
  constexpr std::array kNames = {"added_tokens.json", "chat_template.jinja", "chat_template.json",      "merges.txt",    "special_tokens_map.json",
                                 "spiece.model",      "tokenizer.json",      "tokenizer.model",         "tokenizer_config.json", "vocab.json"};
  std::vector<fs::path> files;
  std::error_code failed;
  for (const char* name : kNames) {
    if (fs::is_regular_file(folder / name, failed)) files.push_back(folder / name);
  }
  if (files.empty()) throw error(Code::kNotFound, "{}: expected the files of a tokenizer, such as tokenizer.json, found none", folder.string());
  return files;
}

}  // namespace penstock::text
