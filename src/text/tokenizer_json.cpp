#include "text/tokenizer_json.h"

#include <cmath>
#include <set>

#include "text/bpe_model.h"
#include "text/byte_alphabet.h"
#include "text/json_node.h"
#include "text/sentencepiece_models.h"
#include "text/tokenizer_json_steps.h"
#include "text/tokenizer_parts.h"

namespace penstock::text {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class TokenizerJsonReader {
 public:
  TokenizerJsonReader(const Json& document, const std::string& file) : root_(document, file) {}

  // Each step throws Error.
  std::shared_ptr<TokenizerParts> read() {
    if (!root_["model"]) throw root_.wrong("an object with a 'model'");
    read_normalizer(root_["normalizer"], parts_->normalizer);
    parts_->byte_level = read_pre_tokenizer(root_["pre_tokenizer"], parts_->pre_tokenizer);
    read_post_processor(root_["post_processor"], *parts_);
    const TokenSpelling spelling = read_decoder(root_["decoder"], parts_->start);
    if (spelling.byte_level != parts_->byte_level) throw root_["decoder"].unsupported("ByteLevel in one of pre_tokenizer and decoder only");
    read_model(root_["model"]);
    parts_->tokens.resize(static_cast<size_t>(vocabulary_->size()));
    for (int32_t id = 0; id < vocabulary_->size(); ++id) {
      const std::string& piece = vocabulary_->piece(id);
      parts_->tokens[static_cast<size_t>(id)].bytes = parts_->byte_level ? piece : spell(spelling, piece);
    }
    read_added_tokens(root_["added_tokens"]);
    for (const auto* side : {&parts_->before, &parts_->after}) {
      for (const int32_t id : *side) {
        if (!vocabulary_->has(id)) throw root_["post_processor"].wrong(fmt::format("ids of tokens, and {} is none", id));
      }
    }
    return std::move(parts_);
  }

 private:
  void read_model(const JsonNode& model) {
    const std::string type = model["type"] ? model["type"].text() : model["merges"] ? "BPE" : "unnamed";
    if (type == "BPE") read_bpe(model);
    else if (type == "Unigram") read_unigram(model);
    else throw model.unsupported(fmt::format("model type '{}'", type));
    parts_->vocabulary = vocabulary_;
  }

  void read_bpe(const JsonNode& model) {
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (model[key] && !model[key].text().empty()) throw model[key].unsupported("anything but an empty text");
    }
    if (model["dropout"] && model["dropout"].real() != 0) throw model["dropout"].unsupported("dropout");
    read_vocabulary(model["vocab"]);
    BpeOptions options{.bytes = parts_->byte_level,
                       .byte_fallback = model["byte_fallback"].flag(false),
                       .ignore_merges = model["ignore_merges"].flag(false),
                       .fuse_unknown = model["fuse_unk"].flag(false)};
    if (model["unk_token"] && (options.unknown = find(model["unk_token"].text())) == kNoToken) throw model["unk_token"].wrong("a token of model.vocab");
    if (options.bytes && options.unknown == kNoToken) require_common_bytes(model["vocab"]);
    const std::vector<BpeMerge> merges = read_merges(model["merges"]);
    parts_->model = std::make_unique<BpeModel>(vocabulary_, merges, options);
  }

  void read_vocabulary(const JsonNode& node) {
    for (const auto& [token, id] : node.object().items()) {
      if (!id.is_number_integer()) throw node.wrong(fmt::format("an integer as the id of \"{}\"", token));
      const int64_t number = id.is_number_unsigned() && id.get<uint64_t>() > INT64_MAX ? INT64_MAX : id.get<int64_t>();
      auto piece = parts_->byte_level ? bytes_of_symbols(token) : token;
      if (piece) vocabulary_->add(number, std::move(*piece), node.where());
      else vocabulary_->add_unmatched(number, token, node.where());
    }
  }

  // Those that no text of the training data had may be missing (SmolLM's has no U+0004): they are dropped, as Hugging Face drops them.
  void require_common_bytes(const JsonNode& node) const {
    for (int byte = 0x20; byte < 0x7F; ++byte) {
      const char value = static_cast<char>(byte);
      if (vocabulary_->find({&value, 1}) != kNoToken) continue;
      throw error(Code::kDataLoss, "{}: byte 0x{:02x} has no token", node.where(), byte);
    }
  }

  // Special tokens are found in the text before, or they are plain text: the model never makes them.
  void read_unigram(const JsonNode& model) {
    if (parts_->byte_level) throw model.unsupported("a unigram model over bytes");
    std::set<std::string> special;
    const JsonNode added = root_["added_tokens"];
    for (size_t i = 0, count = added ? added.list_size() : 0; i < count; ++i) {
      if (added[i]["special"].flag(false)) special.insert(added[i]["content"].text());
    }
    ScoredPieces pieces;
    pieces.single_precision = false;
    const JsonNode list = model["vocab"];
    const size_t count = list.list_size();
    for (size_t id = 0; id < count; ++id) {
      const Json& entry = list.value()[id];
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number() || !std::isfinite(entry[1].get<double>())) {
        throw list[id].wrong("a token and its score");
      }
      const auto& piece = entry[0].get_ref<const std::string&>();
      const bool plain = !piece.empty() && !special.contains(piece);
      if (plain && vocabulary_->find(piece) != kNoToken) throw list[id].wrong("a token that is not listed before");
      if (plain) vocabulary_->add(static_cast<int64_t>(id), piece, list.where());
      else vocabulary_->add_unmatched(static_cast<int64_t>(id), piece, list.where());
      pieces.scores.push_back(entry[1].get<double>());
      pieces.uses.push_back(plain ? PieceUse::kNormal : PieceUse::kNever);
    }
    const int64_t unknown = model["unk_id"] ? model["unk_id"].number() : kNoToken;
    if (unknown != kNoToken && !vocabulary_->has(unknown)) throw model["unk_id"].wrong("the id of a token");
    pieces.unknown = static_cast<int32_t>(unknown);
    if (unknown != kNoToken) pieces.uses[static_cast<size_t>(unknown)] = PieceUse::kNever;
    if (model["byte_fallback"].flag(false)) pieces.byte_ids = byte_ids();
    if (pieces.byte_ids.empty() && unknown == kNoToken) throw model.wrong("an unk_id for what has no token");
    pieces.vocabulary = vocabulary_;
    parts_->model = std::make_unique<UnigramModel>(std::move(pieces));
  }

  // Of <0x00> ... <0xFF>; empty unless all are there.
  [[nodiscard]] std::vector<int32_t> byte_ids() const {
    std::vector<int32_t> ids;
    for (int byte = 0; byte < 256; ++byte) {
      ids.push_back(vocabulary_->find(fmt::format("<0x{:02X}>", byte)));
      if (ids.back() == kNoToken) return {};
    }
    return ids;
  }

  // A token as the file writes it.
  int32_t find(const std::string& token) const {
    const auto piece = parts_->byte_level ? bytes_of_symbols(token) : token;
    return piece ? vocabulary_->find(*piece) : kNoToken;
  }

  std::vector<BpeMerge> read_merges(const JsonNode& list) const {
    std::vector<BpeMerge> merges;
    const size_t count = list.list_size();
    merges.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      const Json& merge = list.value()[i];
      std::string left, right;
      if (merge.is_string()) {  // "left right"
        const auto& text = merge.get_ref<const std::string&>();
        const size_t space = text.find(' ');
        if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) throw list[i].wrong("two tokens with a space between them");
        left = text.substr(0, space);
        right = text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else {
        throw list[i].wrong("two tokens");
      }
      const BpeMerge rule{find(left), find(right), find(left + right)};
      if (rule.left == kNoToken || rule.right == kNoToken || rule.result == kNoToken) {
        throw list[i].wrong("two tokens of model.vocab that together are another one");
      }
      merges.push_back(rule);
    }
    return merges;
  }

  void read_added_tokens(const JsonNode& list) {
    if (!list) return;
    for (size_t i = 0, count = list.list_size(); i < count; ++i) {
      const JsonNode token = list[i];
      if (!token["content"].is_string() || !token["id"]) throw token.wrong("an 'id' and a 'content'");
      AddedToken added{.content = token["content"].text(),
                       .special = token["special"].flag(false),
                       .single_word = token["single_word"].flag(false),
                       .left_strip = token["lstrip"].flag(false),
                       .right_strip = token["rstrip"].flag(false)};
      if (added.content.empty()) throw token["content"].wrong("a text that is not empty");
      added.id = place(token["id"], added.content);
      // The decoder of bytes does not know added tokens: one that could be written in its symbols is read so.
      std::string bytes = parts_->byte_level ? bytes_of_symbols(added.content).value_or(added.content) : added.content;
      parts_->tokens[static_cast<size_t>(added.id)] = {std::move(bytes), added.special, false};
      parts_->added_ids[added.content] = added.id;
      if (!token["normalized"].flag(!added.special)) {
        parts_->raw_added.add(std::move(added));
        continue;
      }
      std::string storage;
      added.content = parts_->normalizer.normalize(added.content, storage);
      if (!added.content.empty()) parts_->normalized_added.add(std::move(added));
    }
  }

  // The id of an added token. Where the vocabulary has the same text it is the vocabulary's, whatever the file says, as in `tokenizers`.
  int32_t place(const JsonNode& id, const std::string& content) {
    const int64_t number = id.number();
    if (vocabulary_->has(number) && vocabulary_->piece(static_cast<int32_t>(number)) == content) return static_cast<int32_t>(number);
    const auto piece = parts_->byte_level ? bytes_of_symbols(content) : content;
    if (const int32_t known = piece ? vocabulary_->find(*piece) : kNoToken; known != kNoToken) return known;
    vocabulary_->add_unmatched(number, content, id.where());
    parts_->tokens.resize(static_cast<size_t>(vocabulary_->size()));
    return static_cast<int32_t>(number);
  }

  JsonNode root_;
  std::shared_ptr<TokenizerParts> parts_ = std::make_shared<TokenizerParts>();
  std::shared_ptr<Vocabulary> vocabulary_ = std::make_shared<Vocabulary>();
};

// The token that `key` of tokenizer_config.json or special_tokens_map.json names; kNoToken when neither does.
int32_t named_token(const fs::path& folder, const char* key, const TokenizerParts& parts) {
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const Result<Json> document = read_json_file(folder / name);
    if (!document && document.error().code() == Code::kNotFound) continue;
    const JsonNode root(document.value(), (folder / name).string());
    const JsonNode node = root[key].is_object() ? root[key]["content"] : root[key];
    if (!node) continue;
    if (const auto added = parts.added_ids.find(node.text()); added != parts.added_ids.end()) return added->second;
    const auto piece = parts.byte_level ? bytes_of_symbols(node.text()) : node.text();
    const int32_t id = piece ? parts.vocabulary->find(*piece) : kNoToken;
    if (id == kNoToken) throw node.wrong("a token of tokenizer.json");
    return id;
  }
  return kNoToken;
}

}  // namespace

std::shared_ptr<TokenizerParts> read_tokenizer_document(const Json& document, const std::string& file) { return TokenizerJsonReader(document, file).read(); }

std::shared_ptr<TokenizerParts> read_tokenizer_json(const fs::path& folder) {
  const fs::path file = folder / "tokenizer.json";
  const Result<Json> document = read_json_file(file);
  std::shared_ptr<TokenizerParts> parts = read_tokenizer_document(document.value(), file.string());
  parts->begin_id = named_token(folder, "bos_token", *parts);
  parts->end_id = named_token(folder, "eos_token", *parts);
  return parts;
}

}  // namespace penstock::text
