#include "text/tokenizer_model_file.h"

#include <climits>

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
    if (piece.type == SentencePiece::kUserDefined) use = PieceUse::kUserDefined;
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
    if (control) {
      parts_->raw_added.add({.id = id, .content = piece.text, .special = true});
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

}  // namespace

std::shared_ptr<TokenizerParts> tokenizer_of(SentencePieceFile file, const std::string& where) { return ModelFileReader(std::move(file), where).read(); }

std::shared_ptr<TokenizerParts> read_tokenizer_model(const fs::path& folder) {
  fs::path path = folder / "tokenizer.model";
  std::error_code failed;
  if (!fs::exists(path, failed) && fs::exists(folder / "spiece.model", failed)) path = folder / "spiece.model";
  const std::string bytes = read_file(path, kFileLimit).value();
  std::shared_ptr<TokenizerParts> parts = tokenizer_of(parse_sentencepiece(bytes, path.string()), path.string());

  const fs::path config_file = folder / "tokenizer_config.json";
  Result<nlohmann::json> config = read_json_file(config_file);
  if (!config && config.error().code() != Code::kNotFound) throw config.error();
  const nlohmann::json document = config ? std::move(*config) : nlohmann::json::object();
  const JsonNode root(document, config_file.string());
  if (parts->begin_id != kNoToken && root["add_bos_token"].flag(true)) parts->before.push_back(parts->begin_id);
  if (parts->end_id != kNoToken && root["add_eos_token"].flag(false)) parts->after.push_back(parts->end_id);
  return parts;
}

}  // namespace penstock::text
