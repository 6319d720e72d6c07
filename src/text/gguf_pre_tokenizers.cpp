#include "text/gguf_pre_tokenizers.h"

#include <vector>

namespace penstock::text {
namespace {

using Json = nlohmann::ordered_json;

// The patterns are those of the models' own files.
constexpr const char* kLlama3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr const char* kLineBreaks = "[\r\n]";
constexpr const char* kHanAndHangul = R"([一-龥ࠀ-一가-퟿]+)";
constexpr const char* kDeepSeekSigns = R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)";
// The cased letters, one by one.
constexpr const char* kDeepSeekLetters =
    R"(\s?[A-Za-z)"
    "µÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ"
    "-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹ"
    "ℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-"
    "𞥃"
    "]+";

Json byte_level(bool cuts_words) { return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", cuts_words}}; }

Json split(const char* pattern) {
  const Json cut = {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({cut, byte_level(false)})}};
}

Json deepseek(const std::vector<const char*>& patterns) {
  Json steps = Json::array();
  for (const char* pattern : patterns) steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  steps.push_back(byte_level(false));
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json digits_then_words() {
  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  return {{"type", "Sequence"}, {"pretokenizers", Json::array({digits, byte_level(true)})}};
}

const std::vector<GgufPreTokenizer>& all() {
  static const std::vector<GgufPreTokenizer> known = {
      {"gpt-2", false, false, false, byte_level(true)}, {"llama-bpe", false, true, true, split(kLlama3)}, {"qwen2", true, false, false, split(kQwen2)},
      {"smollm", false, false, false, digits_then_words()}, {"tekken", false, true, true, split(kTekken)},
      {"deepseek-coder", false, false, true, deepseek({kLineBreaks, R"(\s?\p{L}+)", R"(\s?\p{P}+)", kHanAndHangul})},
      {"deepseek-llm", false, false, true, deepseek({kLineBreaks, kDeepSeekLetters, kDeepSeekSigns, R"(\s+$)", kHanAndHangul})}};
  return known;
}

// Appends what each step does; false for one that no rule above has.
template <typename AnyJson>
bool describe(const AnyJson& step, std::string& out) {
  const std::string type = step.value("type", "");
  if (type == "Sequence") {
    const auto members = step.find("pretokenizers");
    if (members == step.end() || !members->is_array()) return false;
    for (const auto& member : *members) {
      if (!member.is_object() || !describe(member, out)) return false;
    }
    return true;
  }
  if (type == "ByteLevel" && !step.value("add_prefix_space", true)) out += step.value("use_regex", true) ? "words;" : "bytes;";
  else if (type == "Digits" && step.value("individual_digits", false)) out += "digits;";
  else if (type == "Split" && step.value("behavior", "") == "Isolated" && !step.value("invert", false) && step.contains("pattern") && step["pattern"].contains("Regex")) {
    out += "split " + step["pattern"]["Regex"].template get<std::string>() + ";";
  } else {
    return false;
  }
  return true;
}

// nullopt: something else than nothing or NFC.
std::optional<bool> normalizes(const nlohmann::json& tokenizer) {
  const auto found = tokenizer.find("normalizer");
  if (found == tokenizer.end() || found->is_null()) return false;
  const nlohmann::json* step = &*found;
  if (step->is_object() && step->value("type", "") == "Sequence" && step->contains("normalizers") && (*step)["normalizers"].empty()) return false;
  if (step->is_object() && step->value("type", "") == "Sequence" && step->contains("normalizers") && (*step)["normalizers"].size() == 1) step = &(*step)["normalizers"][0];
  if (step->is_object() && step->value("type", "") == "NFC") return true;
  return std::nullopt;
}

}  // namespace

std::optional<GgufPreTokenizer> gguf_pre_tokenizer(const std::string& name) {
  std::string known = name;
  if (name == "llama3" || name == "llama-v3") known = "llama-bpe";             // older converters' names
  if (name == "deepseek-r1-qwen" || name == "megrez") known = "qwen2";  // vocabularies of their own, cut as Qwen2's
  for (const GgufPreTokenizer& rule : all()) {
    if (rule.name == known) return rule;
  }
  return std::nullopt;
}

std::string known_gguf_pre_tokenizers() {
  std::string names;
  for (const GgufPreTokenizer& rule : all()) names += (names.empty() ? "" : ", ") + rule.name;
  return names;
}

std::optional<GgufPreTokenizer> gguf_pre_tokenizer_of(const nlohmann::json& tokenizer) {
  const auto steps = tokenizer.find("pre_tokenizer");
  std::string wanted;
  if (steps == tokenizer.end() || !steps->is_object() || !describe(*steps, wanted)) return std::nullopt;
  const auto form = normalizes(tokenizer);
  const bool ignores_merges = tokenizer.at("model").value("ignore_merges", false);
  for (const GgufPreTokenizer& rule : all()) {
    std::string described;
    (void)describe(rule.steps, described);
    if (described == wanted && form == rule.normalizes && ignores_merges == rule.ignores_merges) return rule;
  }
  return std::nullopt;
}

}  // namespace penstock::text
