// Tokenizers of Hugging Face directories as metadata of GGUF files.
#include <algorithm>
#include <map>
#include <set>

#include "text/characters.h"
#include "text/chat_template.h"
#include "text/gguf_pre_tokenizers.h"
#include "text/gguf_tokenizer.h"
#include "text/json_node.h"
#include "text/sentencepiece_file.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model_file.h"
#include "text/tokenizer_parts.h"

namespace penstock::text {
namespace {

namespace fs = std::filesystem;
using formats::GgufMetadata;
using formats::GgufValue;
using Json = nlohmann::json;

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581

bool is_byte_token(const std::string& text) {
  return text.size() == 6 && text.starts_with("<0x") && text[5] == '>' && text.find_first_not_of("0123456789ABCDEF", 3) == 5;
}

class Writer {
 public:
  Writer(fs::path folder, int64_t vocab_size) : folder_(std::move(folder)), vocab_size_(vocab_size) {}

  GgufMetadata write() {
    const bool has_json = fs::exists(folder_ / "tokenizer.json");
    const bool has_model = fs::exists(folder_ / "tokenizer.model") || fs::exists(folder_ / "spiece.model");
    if (!has_json && !has_model) throw error(Code::kNotFound, "{}: expected tokenizer.json or tokenizer.model, found neither", folder_.string());
    if (has_json) document_ = read_json_file(folder_ / "tokenizer.json").value();
    parts_ = has_json ? read_tokenizer_json(folder_) : read_tokenizer_model(folder_);
    if (has_json && parts_->byte_level) write_bytes();
    else if (has_model) write_sentencepiece();
    else write_characters();
    write_vocabulary();
    write_ids();
    if (const Result<std::string> source = ChatTemplate::source(folder_)) {
      put("tokenizer.chat_template", formats::gguf_text(source.value()));
      const std::string tool_source = ChatTemplate::source(folder_, /*for_tools=*/true).value();
      if (tool_source != source.value()) put("tokenizer.chat_template.tool_use", formats::gguf_text(tool_source));
    }
    return std::move(out_);
  }

 private:
  struct Token {
    std::string text;
    double score = 0;
    int type = SentencePiece::kUnused;
  };

  void put(const char* key, GgufValue value) { out_.emplace_back(key, std::move(value)); }
  [[nodiscard]] std::string file() const { return (folder_ / "tokenizer.json").string(); }
  [[nodiscard]] Error no_place(const std::string& what) const { return error(Code::kUnimplemented, "{}: {} has no place in a GGUF file that we write", file(), what); }

  void set(int64_t id, Token token) {
    if (id < 0 || id >= kMaxVocabulary) throw error(Code::kDataLoss, "{}: expected a token id from 0 to {}, found {}", file(), kMaxVocabulary - 1, id);
    if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(static_cast<size_t>(id) + 1);
    tokens_[static_cast<size_t>(id)] = std::move(token);
  }

  // Over those of the vocabulary. REQUIRES: a tokenizer.json that was read.
  void set_added_tokens() {
    if (!document_.contains("added_tokens")) return;
    for (const Json& token : document_["added_tokens"]) {
      for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
        if (token.value(flag, false)) throw no_place(fmt::format("the flag {} of token '{}'", flag, token["content"].get<std::string>()));
      }
      const int type = token.value("special", false) ? SentencePiece::kControl : SentencePiece::kUserDefined;
      set(token["id"].get<int64_t>(), {token["content"].get<std::string>(), 0, type});
    }
  }

  void write_bytes() {
    const auto cut = gguf_pre_tokenizer_of(document_);
    if (!cut) throw no_place("its way of cutting text (normalizer, pre_tokenizer, ignore_merges)");
    put("tokenizer.ggml.model", formats::gguf_text("gpt2"));
    put("tokenizer.ggml.pre", formats::gguf_text(cut->name));
    for (const auto& [text, id] : document_["model"]["vocab"].items()) set(id.get<int64_t>(), {text, 0, SentencePiece::kNormal});
    set_added_tokens();
    GgufValue::Texts merges;
    for (const Json& merge : document_["model"]["merges"]) {
      merges.push_back(merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
    put("tokenizer.ggml.merges", formats::gguf_texts(std::move(merges)));
  }

  void write_sentencepiece() {
    const fs::path path = folder_ / (fs::exists(folder_ / "tokenizer.model") ? "tokenizer.model" : "spiece.model");
    const SentencePieceFile model = sentencepiece_of_folder(folder_);
    const auto refuse = [&](const char* what) { throw error(Code::kUnimplemented, "{}: {} have no place in a GGUF file that we write", path.string(), what); };
    if (model.model != SentencePieceFile::kBpe) refuse("unigrams");
    if (!model.charsmap.empty()) refuse("normalization rules");
    if (model.space_as_suffix || !model.escape_spaces) refuse("spaces behind words, or not as U+2581,");
    for (size_t id = 0; id < model.pieces.size(); ++id) set(static_cast<int64_t>(id), {model.pieces[id].text, model.pieces[id].score, model.pieces[id].type});
    const std::vector<Token> pieces = tokens_;
    set_added_tokens();
    for (size_t id = 0; id < pieces.size(); ++id) {
      if (pieces[id].text == tokens_[id].text) tokens_[id] = pieces[id];  // the file itself knows better what it is
    }
    write_merging_by_score(model.add_dummy_prefix, model.remove_extra_spaces);
  }

  void write_merging_by_score(bool space_prefix, bool removes_spaces) {
    put("tokenizer.ggml.model", formats::gguf_text("llama"));
    put("tokenizer.ggml.pre", formats::gguf_text("default"));
    put("tokenizer.ggml.add_space_prefix", formats::gguf_bool(space_prefix));
    if (removes_spaces) put("tokenizer.ggml.remove_extra_whitespaces", formats::gguf_bool(true));
    has_scores_ = true;
  }

  // Merges over characters as scores: the earlier a merge, the higher its result's score.
  void write_characters() {
    const Json& model = document_["model"];
    const Json legacy = {{"type", "Sequence"},
                         {"normalizers",
                          {{{"type", "Prepend"}, {"prepend", kSpaceSymbol}}, {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceSymbol}}}}};
    if (model.value("type", "BPE") != "BPE") throw no_place("a model of unigrams");
    if (document_.value("normalizer", Json()) != legacy || !document_.value("pre_tokenizer", Json()).is_null()) throw no_place("its way of cutting text");
    if (!model.value("byte_fallback", false) || model.value("ignore_merges", false)) throw no_place("a model without byte_fallback, or with ignore_merges,");
    const std::string unknown = model.contains("unk_token") && model["unk_token"].is_string() ? model["unk_token"].get<std::string>() : "";
    for (const auto& [text, id] : model["vocab"].items()) {
      set(id.get<int64_t>(), {text, 0, is_byte_token(text) ? SentencePiece::kByte : SentencePiece::kNormal});
    }
    set_added_tokens();
    for (Token& token : tokens_) {
      if (token.text == unknown && !unknown.empty()) token.type = SentencePiece::kUnknown;
    }
    score_merges(model["merges"]);
    write_merging_by_score(true, false);
  }

  void score_merges(const Json& merges) {
    std::map<std::string, size_t> ids;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].type == SentencePiece::kNormal) ids[tokens_[id].text] = id;
    }
    std::set<std::pair<std::string, std::string>> rules;
    std::string last;
    std::set<std::string> done;
    for (const Json& merge : merges) {
      const std::string text = merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + " " + merge[1].get<std::string>();
      const size_t space = text.find(' ');
      const std::string left = text.substr(0, space), right = text.substr(space + 1), result = left + right;
      if (result != last && !done.insert(result).second) throw no_place(fmt::format("an order of merges in which those of '{}' do not follow each other", result));
      last = result;
      rules.emplace(left, right);
      if (const auto id = ids.find(result); id != ids.end()) tokens_[id->second].score = -static_cast<double>(done.size());
    }
    // A score also allows the merges that the list leaves out.
    for (const auto& [text, id] : ids) {
      for (size_t at = 0; at < text.size();) {
        (void)next_character(text, at);
        if (at == text.size()) break;
        const std::string left = text.substr(0, at), right = text.substr(at);
        if (ids.contains(left) && ids.contains(right) && !rules.contains({left, right})) throw no_place(fmt::format("a list of merges without '{}' and '{}'", left, right));
      }
    }
  }

  void write_vocabulary() {
    if (static_cast<int64_t>(tokens_.size()) > vocab_size_) {
      throw error(Code::kDataLoss, "{}: the tokenizer has {} tokens, the model a vocabulary of {}; do the files belong together?", folder_.string(), tokens_.size(), vocab_size_);
    }
    tokens_.resize(static_cast<size_t>(vocab_size_));
    GgufValue::Texts texts;
    GgufValue::Reals scores;
    GgufValue::Integers types;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      const Token& token = tokens_[id];
      texts.push_back(token.text.empty() ? fmt::format("[PAD{}]", id) : token.text);
      scores.push_back(token.score);
      types.push_back(token.type);
    }
    put("tokenizer.ggml.tokens", formats::gguf_texts(std::move(texts)));
    if (has_scores_) put("tokenizer.ggml.scores", formats::gguf_f32s(std::move(scores)));
    put("tokenizer.ggml.token_type", formats::gguf_i32s(std::move(types)));
  }

  void write_ids() {
    const auto put_id = [&](const char* key, int32_t id) {
      if (id != kNoToken) put(key, formats::gguf_u32(id));
    };
    put_id("tokenizer.ggml.bos_token_id", parts_->begin_id);
    put_id("tokenizer.ggml.eos_token_id", parts_->end_id);
    put_id("tokenizer.ggml.unknown_token_id", id_named("unk_token"));
    put_id("tokenizer.ggml.padding_token_id", id_named("pad_token"));
    put("tokenizer.ggml.add_bos_token", formats::gguf_bool(adds(parts_->before, parts_->begin_id)));
    put("tokenizer.ggml.add_eos_token", formats::gguf_bool(adds(parts_->after, parts_->end_id)));
  }

  [[nodiscard]] bool adds(const std::vector<int32_t>& side, int32_t id) const {
    if (side.empty()) return false;
    if (side != std::vector<int32_t>{id}) throw no_place("what it adds around a text, other than bos_token and eos_token,");
    return true;
  }

  // What tokenizer_config.json says; kNoToken when it says nothing, or names no token.
  [[nodiscard]] int32_t id_named(const char* key) const {
    const Result<Json> config = read_json_file(folder_ / "tokenizer_config.json");
    if (!config || !config.value().is_object() || !config.value().contains(key)) return kNoToken;
    const Json named = config.value()[key].is_object() ? config.value()[key].value("content", Json()) : config.value()[key];
    if (!named.is_string()) return kNoToken;
    const auto found = std::ranges::find(tokens_, named.get<std::string>(), &Token::text);
    return found == tokens_.end() ? kNoToken : static_cast<int32_t>(found - tokens_.begin());
  }

  const fs::path folder_;
  const int64_t vocab_size_;
  Json document_;
  std::shared_ptr<TokenizerParts> parts_;
  std::vector<Token> tokens_;
  bool has_scores_ = false;
  GgufMetadata out_;
};

}  // namespace

GgufMetadata gguf_of_tokenizer(const fs::path& folder, int64_t vocab_size) { return Writer(folder, vocab_size).write(); }

}  // namespace penstock::text
