#include "text/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>

#include "base/utf8.h"
#include "text/gguf_pre_tokenizers.h"
#include "text/sentencepiece_file.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_model_file.h"
#include "text/tokenizer_parts.h"

namespace penstock::text {
namespace {

using formats::GgufHeader;
using formats::GgufValue;
using Json = nlohmann::ordered_json;

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kPre = "tokenizer.ggml.pre";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kMerges = "tokenizer.ggml.merges";

// The tokens that steer, under the names that Hugging Face has for them.
constexpr std::pair<const char*, const char*> kSpecialIds[] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                                               {"eos_token", "tokenizer.ggml.eos_token_id"},
                                                               {"unk_token", "tokenizer.ggml.unknown_token_id"},
                                                               {"pad_token", "tokenizer.ggml.padding_token_id"}};

// A list of the vocabulary, with one entry for each token.
template <typename List>
const List* list_for_tokens(const GgufHeader& header, const char* key, const List* list, size_t num_tokens) {
  if (list != nullptr && list->size() != num_tokens) throw header.wrong(key, fmt::format("{} entries, one for each token, not {}", num_tokens, list->size()));
  return list;
}

class Reader {
 public:
  explicit Reader(const GgufHeader& header) : header_(header) {
    const auto* tokens = header.texts(kTokens);
    if (tokens == nullptr || tokens->empty() || tokens->size() > static_cast<size_t>(kMaxVocabulary)) throw header.wrong(kTokens, fmt::format("1 to {} tokens", kMaxVocabulary));
    tokens_ = tokens;
    for (size_t id = 0; id < tokens->size(); ++id) {
      if ((*tokens)[id].empty() || find_invalid_utf8((*tokens)[id]) != std::string_view::npos) throw header.wrong(kTokens, fmt::format("UTF-8 as token {}", id));
    }
    types_ = list_for_tokens(header, kTypes, header.integers(kTypes), tokens->size());
    const std::string* model = header.text(kModel);
    if (model == nullptr) throw header.wrong(kModel, "gpt2 or llama");
    is_bytes_ = *model == "gpt2";
    if (!is_bytes_ && *model != "llama") throw header.unsupported(kModel, fmt::format("a tokenizer of kind '{}'; this version reads gpt2 and llama, this one", model->substr(0, 80)));
  }

  [[nodiscard]] bool is_bytes() const { return is_bytes_; }
  [[nodiscard]] std::string where() const { return header_.file + ": " + (is_bytes_ ? "its tokenizer as tokenizer.json" : "its tokenizer"); }

  [[nodiscard]] int32_t id_of(const char* key) const {
    return static_cast<int32_t>(header_.integer(key, 0, static_cast<int64_t>(tokens_->size()) - 1).value_or(kNoToken));
  }
  // The ends of turns and of messages. Most files name one end only, where generation_config.json had several: special tokens that end a turn in every
  // family that has them count too.
  [[nodiscard]] std::vector<int32_t> other_ends() const {
    static constexpr std::string_view kEnds[] = {"<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "<end_of_turn>"};
    std::vector<int32_t> ids;
    for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      if (const int32_t id = id_of(key); id != kNoToken) ids.push_back(id);
    }
    for (size_t id = 0; id < tokens_->size(); ++id) {
      const std::string& token = (*tokens_)[id];
      if (type_of(id) != SentencePiece::kControl || std::find(std::begin(kEnds), std::end(kEnds), token) == std::end(kEnds)) continue;
      if (std::find(ids.begin(), ids.end(), static_cast<int32_t>(id)) == ids.end()) ids.push_back(static_cast<int32_t>(id));
    }
    return ids;
  }
  [[nodiscard]] const std::string& token(int32_t id) const { return (*tokens_)[static_cast<size_t>(id)]; }
  [[nodiscard]] bool adds_begin() const { return adds("tokenizer.ggml.add_bos_token", is_bytes_ ? rule().adds_begin : true, "tokenizer.ggml.bos_token_id"); }
  [[nodiscard]] bool adds_end() const { return adds("tokenizer.ggml.add_eos_token", false, "tokenizer.ggml.eos_token_id"); }

  // As a tokenizer.json. REQUIRES: is_bytes().
  [[nodiscard]] Json document() const {
    const GgufPreTokenizer cut = rule();
    Json vocab = Json::object(), added = Json::array();
    std::map<std::string_view, size_t> first;
    const size_t outside = first_id_outside();
    for (size_t id = 0; id < tokens_->size(); ++id) {
      const int type = type_of(id);
      if (type == SentencePiece::kUnused) continue;
      const auto [other, is_new] = first.emplace((*tokens_)[id], id);
      if (!is_new) throw header_.wrong(kTokens, fmt::format("different tokens, not ids {} and {} alike", other->second, id));
      const bool is_plain = type == SentencePiece::kNormal || type == SentencePiece::kUnknown;
      if (is_plain || id < outside) vocab.get_ref<Json::object_t&>().emplace_back((*tokens_)[id], id);  // [] would search them all
      if (!is_plain) added.push_back(added_token(id, type));
    }
    const auto* merges = header_.texts(kMerges);
    if (merges == nullptr) throw header_.wrong(kMerges, "the list of merges");
    const Json decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    return {{"version", "1.0"},
            {"truncation", nullptr},
            {"padding", nullptr},
            {"added_tokens", added},
            {"normalizer", cut.normalizes ? Json{{"type", "NFC"}} : Json(nullptr)},
            {"pre_tokenizer", cut.steps},
            {"post_processor", post_processor(decoder)},
            {"decoder", decoder},
            {"model",
             {{"type", "BPE"},
              {"dropout", nullptr},
              {"unk_token", nullptr},
              {"continuing_subword_prefix", nullptr},
              {"end_of_word_suffix", nullptr},
              {"fuse_unk", false},
              {"byte_fallback", false},
              {"ignore_merges", cut.ignores_merges},
              {"vocab", std::move(vocab)},
              {"merges", *merges}}}};
  }

  // As a tokenizer.model. REQUIRES: not is_bytes().
  [[nodiscard]] SentencePieceFile sentencepiece() const {
    const auto* scores = list_for_tokens(header_, kScores, header_.reals(kScores), tokens_->size());
    if (scores == nullptr || types_ == nullptr) throw header_.wrong(scores == nullptr ? kScores : kTypes, "a list with one entry for each token");
    SentencePieceFile file;
    file.model = SentencePieceFile::kBpe;
    for (size_t id = 0; id < tokens_->size(); ++id) {
      if (!std::isfinite((*scores)[id])) throw header_.wrong(kScores, fmt::format("a finite score for token {}", id));
      file.pieces.push_back({(*tokens_)[id], static_cast<float>((*scores)[id]), static_cast<SentencePiece::Type>(type_of(id))});
      file.byte_fallback |= type_of(id) == SentencePiece::kByte;
    }
    file.add_dummy_prefix = header_.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
    file.remove_extra_spaces = header_.boolean("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
    if (const int32_t id = id_of("tokenizer.ggml.bos_token_id"); id != kNoToken) file.begin_piece = token(id);
    if (const int32_t id = id_of("tokenizer.ggml.eos_token_id"); id != kNoToken) file.end_piece = token(id);
    return file;
  }

 private:
  // Hugging Face numbers the added tokens that a vocabulary lacks from its size on. So may those be left out that come, without a hole, behind all plain
  // ones; the others stand in both lists.
  [[nodiscard]] size_t first_id_outside() const {
    size_t behind_plain = 0, used = 0;
    bool has_hole = false;
    for (size_t id = 0; id < tokens_->size(); ++id) {
      const int type = type_of(id);
      if (type == SentencePiece::kUnused) continue;
      has_hole |= used != id;
      used = id + 1;
      if (type == SentencePiece::kNormal || type == SentencePiece::kUnknown) behind_plain = id + 1;
    }
    return has_hole ? used : behind_plain;
  }

  [[nodiscard]] GgufPreTokenizer rule() const {
    const std::string* name = header_.text(kPre);
    const std::string* architecture = header_.text("general.architecture");
    const std::string gpt2 = "gpt-2";  // converters gave no names when it was the only one
    if (name == nullptr && architecture != nullptr && *architecture == "gpt2") name = &gpt2;
    if (name == nullptr) throw header_.wrong(kPre, "how text is cut, which old converters left out; convert the model again");
    auto rule = gguf_pre_tokenizer(*name);
    if (!rule) throw header_.unsupported(kPre, fmt::format("'{}'; this version knows {}, this one", name->substr(0, 80), known_gguf_pre_tokenizers()));
    return std::move(*rule);
  }

  [[nodiscard]] int type_of(size_t id) const {
    const int64_t type = types_ == nullptr ? int64_t{SentencePiece::kNormal} : (*types_)[id];
    if (type < SentencePiece::kNormal || type > SentencePiece::kByte) throw header_.wrong(kTypes, fmt::format("1 to 6 for token {}, not {}", id, type));
    if (is_bytes_ && type == SentencePiece::kByte) throw header_.wrong(kTypes, fmt::format("no byte as token {} of a byte-level tokenizer", id));
    return static_cast<int>(type);
  }

  [[nodiscard]] bool adds(const char* key, bool otherwise, const char* id) const { return header_.boolean(key).value_or(otherwise) && id_of(id) != kNoToken; }

  [[nodiscard]] Json added_token(size_t id, int type) const {
    return {{"id", id},         {"content", (*tokens_)[id]}, {"single_word", false},
            {"lstrip", false}, {"rstrip", false},           {"normalized", false}, {"special", type == SentencePiece::kControl}};
  }

  [[nodiscard]] Json post_processor(const Json& byte_level) const {
    if (!adds_begin() && !adds_end()) return byte_level;
    Json single = Json::array(), pair = Json::array(), special = Json::object();
    const auto add = [&](Json& list, const char* key, int type) {
      const int32_t id = id_of(key);
      list.push_back({{"SpecialToken", {{"id", token(id)}, {"type_id", type}}}});
      special[token(id)] = {{"id", token(id)}, {"ids", {id}}, {"tokens", {token(id)}}};
    };
    const auto add_sequence = [&](Json& list, const char* name, int type) {
      if (adds_begin()) add(list, "tokenizer.ggml.bos_token_id", type);
      list.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
      if (adds_end()) add(list, "tokenizer.ggml.eos_token_id", type);
    };
    add_sequence(single, "A", 0);
    add_sequence(pair, "A", 0);
    add_sequence(pair, "B", 1);
    return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
  }

  const GgufHeader& header_;
  const GgufValue::Texts* tokens_ = nullptr;
  const GgufValue::Integers* types_ = nullptr;
  bool is_bytes_ = false;
};

}  // namespace

std::shared_ptr<TokenizerParts> read_gguf_tokenizer(const GgufHeader& header) {
  const Reader reader(header);
  if (reader.is_bytes()) {
    auto parts = read_tokenizer_document(nlohmann::json(reader.document()), reader.where());
    parts->begin_id = reader.id_of("tokenizer.ggml.bos_token_id");
    parts->end_id = reader.id_of("tokenizer.ggml.eos_token_id");
    parts->end_ids = reader.other_ends();
    return parts;
  }
  auto parts = tokenizer_of(reader.sentencepiece(), reader.where());
  parts->begin_id = reader.id_of("tokenizer.ggml.bos_token_id");
  parts->end_id = reader.id_of("tokenizer.ggml.eos_token_id");
  parts->end_ids = reader.other_ends();
  if (reader.adds_begin()) parts->before.push_back(parts->begin_id);
  if (reader.adds_end()) parts->after.push_back(parts->end_id);
  return parts;
}

std::map<std::string, std::string> special_tokens_of_gguf(const GgufHeader& header) {
  const Reader reader(header);
  std::map<std::string, std::string> tokens;
  for (const auto& [name, key] : kSpecialIds) {
    if (const int32_t id = reader.id_of(key); id != kNoToken) tokens[name] = reader.token(id);
  }
  return tokens;
}

namespace {

std::string tokenizer_json(const Reader& reader, const std::string& file) {
  try {
    return reader.document().dump(1) + "\n";
  } catch (const Json::exception&) {
    throw error(Code::kDataLoss, "{}: tokenizer.ggml.merges: one of them is not UTF-8; a tokenizer.json can hold nothing else", file);
  }
}

}  // namespace

std::map<std::string, std::string> tokenizer_files_of_gguf(const GgufHeader& header) {
  const Reader reader(header);
  std::map<std::string, std::string> files;
  if (reader.is_bytes()) files["tokenizer.json"] = tokenizer_json(reader, header.file);
  else files["tokenizer.model"] = format_sentencepiece(reader.sentencepiece());
  Json config = {{"tokenizer_class", reader.is_bytes() ? "PreTrainedTokenizerFast" : "LlamaTokenizer"}, {"clean_up_tokenization_spaces", false},
                 {"add_bos_token", reader.adds_begin()}, {"add_eos_token", reader.adds_end()}};
  if (!reader.is_bytes()) config["legacy"] = true;
  for (const auto& [name, token] : special_tokens_of_gguf(header)) config[name] = token;
  const std::string *source = header.text("tokenizer.chat_template"), *tool_source = header.text("tokenizer.chat_template.tool_use");
  if (source != nullptr) config["chat_template"] = *source;
  if (source != nullptr && tool_source != nullptr) {
    config["chat_template"] = Json::array({{{"name", "default"}, {"template", *source}}, {{"name", "tool_use"}, {"template", *tool_source}}});
  }
  files["tokenizer_config.json"] = config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  return files;
}

}  // namespace penstock::text
