#include "text/tokenizer_json_steps.h"

#include <algorithm>
#include <climits>

#include "text/byte_alphabet.h"
#include "text/characters.h"
#include "text/charsmap.h"

namespace penstock::text {
namespace {

// GPT-2's pattern for words.
constexpr std::string_view kByteLevelPattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Calls `read` with each member of a Sequence, or with the node itself. Depth is bounded by the JSON's.
void for_each_step(const JsonNode& node, const char* members, const std::function<void(const JsonNode&, const std::string& type)>& read) {
  if (!node) return;
  const std::string type = node["type"].text();
  if (type != "Sequence") return read(node, type);
  const JsonNode list = node[members];
  for (size_t i = 0, count = list.list_size(); i < count; ++i) for_each_step(list[i], members, read);
}

UnicodeRegex regex_of(const JsonNode& pattern) { return UnicodeRegex::compile(pattern.text(), pattern.where()).value(); }

const std::string& literal_of(const JsonNode& pattern) {
  if (pattern.text().empty()) throw pattern.wrong("a text that is not empty");
  return pattern.text();
}

void add_replace(const JsonNode& node, Normalizer& normalizer) {
  const JsonNode pattern = node["pattern"];
  if (pattern["Regex"]) return normalizer.add_replace(regex_of(pattern["Regex"]), node["content"].text());
  normalizer.add_replace(literal_of(pattern["String"]), node["content"].text());
}

std::string from_base64(const JsonNode& node) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string_view text = node.text();
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) throw node.wrong("base64");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if ((count += 6) < 8) continue;
    count -= 8;
    bytes += static_cast<char>(bits >> count & 0xFF);
  }
  return bytes;
}

void add_precompiled(const JsonNode& node, Normalizer& normalizer) {
  const JsonNode table = node["precompiled_charsmap"];
  const auto rules = std::make_shared<const Charsmap>(from_base64(table), table.where());
  normalizer.add_step([rules](std::string_view text) { return normalize_clusters(text, *rules); });
}

void add_normalizer_step(const JsonNode& node, const std::string& type, Normalizer& normalizer) {
  if (type == "NFC") normalizer.add_unicode_form(UnicodeForm::kNfc);
  else if (type == "NFD") normalizer.add_unicode_form(UnicodeForm::kNfd);
  else if (type == "NFKC") normalizer.add_unicode_form(UnicodeForm::kNfkc);
  else if (type == "NFKD") normalizer.add_unicode_form(UnicodeForm::kNfkd);
  else if (type == "Lowercase") normalizer.add_lowercase();
  else if (type == "StripAccents") normalizer.add_strip_accents();
  else if (type == "Strip") normalizer.add_strip(node["strip_left"].flag(true), node["strip_right"].flag(true));
  else if (type == "Prepend") normalizer.add_prepend(node["prepend"].text());
  else if (type == "Replace") add_replace(node, normalizer);
  else if (type == "Precompiled") add_precompiled(node, normalizer);
  else throw node.unsupported(fmt::format("normalizer '{}'", type));
}

SplitBehavior behavior_of(const JsonNode& node) {
  const std::string& name = node.text();
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  throw node.wrong("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

PrependScheme scheme_of(const JsonNode& node) {
  if (!node["prepend_scheme"]) return node["add_prefix_space"].flag(true) ? PrependScheme::kAlways : PrependScheme::kNever;
  const std::string& name = node["prepend_scheme"].text();
  if (name == "always") return PrependScheme::kAlways;
  if (name == "first") return PrependScheme::kFirst;
  if (name == "never") return PrependScheme::kNever;
  throw node["prepend_scheme"].wrong("always, first or never");
}

void add_pre_tokenizer_step(const JsonNode& node, const std::string& type, PreTokenizer& pre_tokenizer) {
  if (type == "ByteLevel") {
    if (node["add_prefix_space"].flag(true)) pre_tokenizer.add_prefix_space();
    if (node["use_regex"].flag(true)) {
      pre_tokenizer.add_split(pattern_of(UnicodeRegex::compile(kByteLevelPattern, node.where()).value()), SplitBehavior::kIsolated);
    }
  } else if (type == "Split") {
    const JsonNode pattern = node["pattern"];
    pre_tokenizer.add_split(pattern["Regex"] ? pattern_of(regex_of(pattern["Regex"])) : pattern_of(literal_of(pattern["String"])),
                            behavior_of(node["behavior"]), node["invert"].flag(false));
  } else if (type == "Metaspace") {
    pre_tokenizer.add_metaspace(node["replacement"].text(), scheme_of(node), node["split"].flag(true));
  } else if (type == "Digits") {
    pre_tokenizer.add_split(pattern_of(is_number), node["individual_digits"].flag(false) ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  } else if (type == "Whitespace") {
    pre_tokenizer.add_split(pattern_of(UnicodeRegex::compile(R"(\w+|[^\w\s]+)", node.where()).value()), SplitBehavior::kRemoved, true);
  } else if (type == "WhitespaceSplit") {
    pre_tokenizer.add_split(pattern_of(is_white_space), SplitBehavior::kRemoved);
  } else if (type == "Punctuation") {
    pre_tokenizer.add_split(pattern_of(is_punctuation), node["behavior"] ? behavior_of(node["behavior"]) : SplitBehavior::kIsolated);
  } else {
    throw node.unsupported(fmt::format("pre_tokenizer '{}'", type));
  }
}

std::vector<int32_t> ids_of(const JsonNode& token) {
  std::vector<int32_t> ids;
  const JsonNode list = token["ids"];
  for (size_t i = 0, count = list.list_size(); i < count; ++i) {
    const int64_t id = list[i].number();
    if (id < 0 || id >= kMaxVocabulary) throw list[i].wrong("a token id");
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void read_template(const JsonNode& node, TokenizerParts& parts) {
  const JsonNode single = node["single"];
  bool behind = false;
  for (size_t i = 0, count = single.list_size(); i < count; ++i) {
    if (single[i]["Sequence"]) {
      if (behind) throw single.unsupported("a template with its text twice");
      behind = true;
      continue;
    }
    const std::string& name = single[i]["SpecialToken"]["id"].text();
    const std::vector<int32_t> ids = ids_of(node["special_tokens"][name.c_str()]);
    std::vector<int32_t>& side = behind ? parts.after : parts.before;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (!behind) throw single.wrong("a template with its text");
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) text.replace(at, from.size(), to);
}

// "<0x0A>" -> 10
std::optional<char> byte_token(const std::string& token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const std::string digits = token.substr(3, 2);
  if (digits.find_first_not_of("0123456789ABCDEFabcdef") != std::string::npos) return std::nullopt;
  return static_cast<char>(std::stoi(digits, nullptr, 16));
}

void read_strip(const JsonNode& node, StartRule& start) {
  if (node["content"].text() != " ") throw node.unsupported("stripping anything but spaces");
  if (node["stop"].number() != 0) throw node.unsupported("stripping the end of a text");
  start = {StartRule::kStripText, static_cast<int>(std::clamp<int64_t>(node["start"].number(), 0, INT_MAX))};
}

}  // namespace

void read_normalizer(const JsonNode& node, Normalizer& normalizer) {
  for_each_step(node, "normalizers", [&](const JsonNode& step, const std::string& type) { add_normalizer_step(step, type, normalizer); });
}

bool read_pre_tokenizer(const JsonNode& node, PreTokenizer& pre_tokenizer) {
  bool bytes = false;
  for_each_step(node, "pretokenizers", [&](const JsonNode& step, const std::string& type) {
    if (bytes) throw step.unsupported("a step after ByteLevel");
    add_pre_tokenizer_step(step, type, pre_tokenizer);
    bytes = type == "ByteLevel";
  });
  return bytes;
}

void read_post_processor(const JsonNode& node, TokenizerParts& parts) {
  for_each_step(node, "processors", [&](const JsonNode& step, const std::string& type) {
    if (type == "ByteLevel") return;  // changes offsets only
    if (type == "TemplateProcessing") return read_template(step, parts);
    throw step.unsupported(fmt::format("post_processor '{}'", type));
  });
}

TokenSpelling read_decoder(const JsonNode& node, StartRule& start) {
  if (!node) throw node.unsupported("a tokenizer without a decoder");
  TokenSpelling spelling;
  bool fused = false;
  for_each_step(node, "decoders", [&](const JsonNode& step, const std::string& type) {
    if (type == "Fuse") fused = true;
    else if (type == "Strip" && fused) read_strip(step, start);
    else if (fused || spelling.byte_level || spelling.byte_fallback) throw step.unsupported(fmt::format("'{}' at this place", type));
    else if (type == "ByteLevel") spelling.byte_level = true;
    else if (type == "ByteFallback") spelling.byte_fallback = true;
    else if (type == "Replace") {
      const std::string& content = step["content"].text();
      spelling.steps.emplace_back([from = literal_of(step["pattern"]["String"]), content](std::string& text) { replace_all(text, from, content); });
    } else if (type == "Metaspace") {
      spelling.steps.emplace_back([symbol = literal_of(step["replacement"])](std::string& text) { replace_all(text, symbol, " "); });
      if (scheme_of(step) != PrependScheme::kNever) start.kind = StartRule::kDropFromFirst;
    } else {
      throw step.unsupported(fmt::format("decoder '{}'", type));
    }
  });
  return spelling;
}

std::string spell(const TokenSpelling& spelling, const std::string& token) {
  std::string text = token;
  for (const auto& step : spelling.steps) step(text);
  if (spelling.byte_level) return bytes_of_symbols(text).value_or(text);
  if (spelling.byte_fallback) {
    if (const auto byte = byte_token(text)) return {*byte};
  }
  return text;
}

}  // namespace penstock::text
