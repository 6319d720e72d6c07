#include "text/tokenizer_model_file.h"

#include <algorithm>
#include <charconv>
#include <climits>
#include <map>
#include <set>

#include "base/file.h"
#include "text/charsmap.h"
#include "text/json_node.h"
#include "text/sentencepiece_file.h"
#include "text/sentencepiece_models.h"
#include "text/tokenizer_parts.h"

namespace penstock::text {
namespace {

namespace fs = std::filesystem;

constexpr size_t kFileLimit = 256 << 20;  // bytes
constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581

std::string with_spaces(std::string text) {
  for (size_t at = text.find(kSpaceSymbol); at != std::string::npos; at = text.find(kSpaceSymbol, at + 1)) text.replace(at, kSpaceSymbol.size(), " ");
  return text;
}

// "<0x0A>" -> 10; -1 for another text.
int byte_of(const std::string& text) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const size_t high = kDigits.find(text[3]), low = kDigits.find(text[4]);
  return high == std::string_view::npos || low == std::string_view::npos ? -1 : static_cast<int>(high * 16 + low);
}

class ModelFileReader {
 public:
  ModelFileReader(SentencePieceFile file, std::string where) : file_(std::move(file)), where_(std::move(where)) {}

  std::shared_ptr<TokenizerParts> read() {
    for (size_t id = 0; id < file_.pieces.size(); ++id) add(static_cast<int32_t>(id), file_.pieces[id]);
    if (pieces_.unknown == kNoToken) throw error(Code::kDataLoss, "{}: expected an unknown token, found none", where_);
    if (file_.byte_fallback) {
      for (size_t byte = 0; byte < 256; ++byte) {
        if (byte_ids_[byte] == kNoToken) throw error(Code::kDataLoss, "{}: byte 0x{:02x} has no token", where_, byte);
      }
      pieces_.byte_ids = byte_ids_;
    }
    pieces_.vocabulary = parts_->vocabulary = vocabulary_;
    add_normalizer();
    if (file_.escape_spaces && file_.remove_extra_spaces) parts_->start = {StartRule::kStripEveryToken, INT_MAX};
    else if (file_.escape_spaces && file_.add_dummy_prefix) parts_->start = {StartRule::kStripEveryToken, 1};
    if (file_.model == SentencePieceFile::kBpe) parts_->model = std::make_unique<ScoredMergeModel>(std::move(pieces_));
    else parts_->model = std::make_unique<UnigramModel>(std::move(pieces_));
    return std::move(parts_);
  }

 private:
  void add(int32_t id, const SentencePiece& piece) {
    const bool control = piece.type == SentencePiece::kControl;
    TokenizerParts::Token token{with_spaces(piece.text), control, piece.type != SentencePiece::kUnknown && piece.type != SentencePiece::kByte};
    PieceUse use = PieceUse::kNever;
    if (piece.type == SentencePiece::kNormal) use = PieceUse::kNormal;
    if (piece.type == SentencePiece::kUserDefined && !piece.added) use = PieceUse::kUserDefined;
    if (piece.type == SentencePiece::kUnused) use = PieceUse::kUnused;
    if (piece.type == SentencePiece::kUnknown) {
      if (pieces_.unknown != kNoToken) throw error(Code::kDataLoss, "{}: ids {} and {} are both the unknown token", where_, pieces_.unknown, id);
      pieces_.unknown = id;
      token.bytes = file_.unknown_surface;
    }
    if (piece.type == SentencePiece::kByte) {
      const int byte = byte_of(piece.text);
      if (byte < 0) throw error(Code::kDataLoss, "{}: piece {} is a byte, but '{}' names none", where_, id, piece.text);
      byte_ids_[static_cast<size_t>(byte)] = id;
      token.bytes = std::string(1, static_cast<char>(byte));
    }
    if (control || piece.added) parts_->raw_added.add({.id = id, .content = piece.text, .special = control});
    if (control) {
      if (piece.text == file_.begin_piece) parts_->begin_id = id;
      if (piece.text == file_.end_piece) parts_->end_id = id;
    }
    if (use == PieceUse::kNever) parts_->added_ids[piece.text] = id;
    if (use == PieceUse::kUserDefined) symbols_->add(piece.text, id);
    if (use != PieceUse::kNever && vocabulary_->find(piece.text) != kNoToken) throw error(Code::kDataLoss, "{}: two pieces are '{}'", where_, piece.text);
    if (use == PieceUse::kNever) vocabulary_->add_unmatched(id, piece.text, where_);
    else vocabulary_->add(id, piece.text, where_);
    parts_->tokens.push_back(std::move(token));
    pieces_.scores.push_back(piece.score);
    pieces_.uses.push_back(use);
  }

  void add_normalizer() {
    const SpaceRules spaces{file_.add_dummy_prefix, file_.remove_extra_spaces, file_.escape_spaces, file_.space_as_suffix};
    const auto rules = std::make_shared<const Charsmap>(file_.charsmap, where_);
    parts_->normalizer.add_step([=, symbols = symbols_](std::string_view text) { return normalize_sentence(text, *rules, spaces, *symbols); });
  }

  const SentencePieceFile file_;
  const std::string where_;
  std::shared_ptr<TokenizerParts> parts_ = std::make_shared<TokenizerParts>();
  std::shared_ptr<Vocabulary> vocabulary_ = std::make_shared<Vocabulary>();
  std::shared_ptr<PieceTrie> symbols_ = std::make_shared<PieceTrie>();
  ScoredPieces pieces_;
  std::vector<int32_t> byte_ids_ = std::vector<int32_t>(256, kNoToken);
};

fs::path model_file(const fs::path& folder) {
  std::error_code failed;
  const bool other = !fs::exists(folder / "tokenizer.model", failed) && fs::exists(folder / "spiece.model", failed);
  return folder / (other ? "spiece.model" : "tokenizer.model");
}

nlohmann::json json_or_nothing(const fs::path& file) {
  Result<nlohmann::json> document = read_json_file(file);
  if (!document && document.error().code() != Code::kNotFound) throw document.error();
  return document ? std::move(*document) : nlohmann::json::object();
}

// A token is written as itself or as {"content": ...}.
std::string content_of(const JsonNode& node) { return node.is_string() ? node.text() : node.is_object() ? node["content"].text() : ""; }

// {"32000": {"content": "<|im_end|>", "special": true, ...}, ...}
std::map<int64_t, SentencePiece> tokens_of_decoder(const JsonNode& decoder) {
  std::map<int64_t, SentencePiece> tokens;
  for (const auto& [key, value] : decoder.object().items()) {
    int64_t id = 0;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size()) throw decoder.wrong("ids as keys");
    const JsonNode token = decoder[key.c_str()];
    const bool special = token["special"].flag(false);
    tokens[id] = {token["content"].text(), 0, special ? SentencePiece::kControl : SentencePiece::kUserDefined, /*added=*/true};
  }
  return tokens;
}

// added_tokens.json has {"<|im_end|>": 32000, ...}; those that special_tokens_map.json lists steer.
std::map<int64_t, SentencePiece> tokens_of_list(const fs::path& folder) {
  const nlohmann::json list = json_or_nothing(folder / "added_tokens.json"), map = json_or_nothing(folder / "special_tokens_map.json");
  const JsonNode listed(list, (folder / "added_tokens.json").string()), named(map, (folder / "special_tokens_map.json").string());
  std::set<std::string> special;
  for (const auto& [key, value] : named.object().items()) {
    const JsonNode node = named[key.c_str()];
    if (!value.is_array()) special.insert(content_of(node));
    for (size_t i = 0; value.is_array() && i < node.list_size(); ++i) special.insert(content_of(node[i]));
  }
  std::map<int64_t, SentencePiece> tokens;
  for (const auto& [text, id] : listed.object().items()) {
    tokens[listed[text.c_str()].number()] = {text, 0, special.contains(text) ? SentencePiece::kControl : SentencePiece::kUserDefined, /*added=*/true};
  }
  return tokens;
}

}  // namespace

std::shared_ptr<TokenizerParts> tokenizer_of(SentencePieceFile file, const std::string& where) { return ModelFileReader(std::move(file), where).read(); }

SentencePieceFile sentencepiece_of_folder(const fs::path& folder) {
  const fs::path path = model_file(folder);
  SentencePieceFile file = parse_sentencepiece(read_file(path, kFileLimit).value(), path.string());
  const nlohmann::json config = json_or_nothing(folder / "tokenizer_config.json");
  const JsonNode root(config, (folder / "tokenizer_config.json").string());
  const std::map<int64_t, SentencePiece> added = root["added_tokens_decoder"] ? tokens_of_decoder(root["added_tokens_decoder"]) : tokens_of_list(folder);
  for (const auto& [id, piece] : added) {
    if (id < 0 || id > static_cast<int64_t>(file.pieces.size()) || id >= kMaxVocabulary) {
      throw error(Code::kUnimplemented, "{}: the token '{}' is added as id {} behind {} others; ids without tokens are not supported", folder.string(), piece.text, id,
                  file.pieces.size());
    }
    if (id == static_cast<int64_t>(file.pieces.size())) file.pieces.push_back(piece);
    else if (file.pieces[static_cast<size_t>(id)].text != piece.text) file.pieces[static_cast<size_t>(id)] = piece;  // else the model itself knows better what it is
  }
  const auto has_control = [&](const std::string& text) {
    return std::ranges::any_of(file.pieces, [&](const SentencePiece& piece) { return piece.type == SentencePiece::kControl && piece.text == text; });
  };
  if (const std::string begin = content_of(root["bos_token"]); has_control(begin)) file.begin_piece = begin;
  if (const std::string end = content_of(root["eos_token"]); has_control(end)) file.end_piece = end;
  return file;
}

std::shared_ptr<TokenizerParts> read_tokenizer_model(const fs::path& folder) {
  std::shared_ptr<TokenizerParts> parts = tokenizer_of(sentencepiece_of_folder(folder), model_file(folder).string());
  const nlohmann::json config = json_or_nothing(folder / "tokenizer_config.json");
  const JsonNode root(config, (folder / "tokenizer_config.json").string());
  if (parts->begin_id != kNoToken && root["add_bos_token"].flag(true)) parts->before.push_back(parts->begin_id);
  if (parts->end_id != kNoToken && root["add_eos_token"].flag(false)) parts->after.push_back(parts->end_id);
  return parts;
}

}  // namespace penstock::text
