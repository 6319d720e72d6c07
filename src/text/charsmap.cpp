#include "text/charsmap.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/utf8.h"
#include "text/characters.h"

namespace penstock::text {
namespace {

constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581

// The parts of a unit.
bool has_leaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }

// What the start of `text` becomes, and how many bytes that start has.
struct Step {
  std::string_view text;
  size_t length;
};

Step step_of(std::string_view text, const Charsmap& rules, const PieceTrie& symbols) {
  size_t symbol = 0;
  symbols.for_each_prefix(text, [&](size_t length, int32_t) { symbol = length; });
  if (symbol > 0) return {text.substr(0, symbol), symbol};
  if (const Charsmap::Match match = rules.longest(text); match.length > 0) return {match.replacement, match.length};
  const auto more = static_cast<size_t>(std::max(0, utf8_after(static_cast<unsigned char>(text.front())).count));
  const size_t length = std::min(text.size(), 1 + more);
  return {text.substr(0, length), length};
}

void append_escaped(std::string& out, std::string_view text, bool escape) {
  for (const char byte : text) {
    if (escape && byte == ' ') out += kSpaceSymbol;
    else out += byte;
  }
}

}  // namespace

Charsmap::Charsmap(std::string_view table, const std::string& where) {
  if (table.empty()) return;
  uint32_t size = 0;
  if (table.size() >= sizeof(size)) std::memcpy(&size, table.data(), sizeof(size));
  if (table.size() < sizeof(size) || size > table.size() - sizeof(size) || size % 4 != 0 || size == 0) {
    throw error(Code::kDataLoss, "{}: the normalization table of {} bytes says that it has {} bytes of rules", where, table.size(), size);
  }
  units_.resize(size / 4);
  std::memcpy(units_.data(), table.data() + sizeof(size), size);
  texts_ = table.substr(sizeof(size) + size);
}

Charsmap::Match Charsmap::find(std::string_view text, bool first) const {
  Match match;
  if (units_.empty()) return match;
  uint32_t node = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label_of(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= offset_of(unit);
    if (!has_leaf(unit) || node >= units_.size()) continue;
    const uint32_t begin = value_of(units_[node]);
    if (begin >= texts_.size()) continue;
    match = {i + 1, std::string_view(texts_).substr(begin, texts_.find('\0', begin) - begin)};
    if (first) break;
  }
  return match;
}

std::string normalize_clusters(std::string_view text, const Charsmap& rules) {
  constexpr size_t kShortCluster = 6;  // bytes
  std::string out;
  out.reserve(text.size());
  const auto apply = [&](std::string_view part) {
    const Charsmap::Match match = rules.shortest(part);
    if (match.length > 0) out += match.replacement;
    return match.length > 0;
  };
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    char32_t last = next_character(text, end);
    utf8proc_int32_t state = 0;
    for (size_t next = end; end < text.size(); end = next) {
      const char32_t c = next_character(text, next);
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last), static_cast<utf8proc_int32_t>(c), &state)) break;
      last = c;
    }
    const std::string_view cluster = text.substr(at, end - at);
    at = end;
    if (cluster.size() < kShortCluster && apply(cluster)) continue;
    for (size_t i = 0, begin = 0; i < cluster.size(); begin = i) {
      (void)next_character(cluster, i);
      const std::string_view character = cluster.substr(begin, i - begin);
      if (!apply(character)) out += character;
    }
  }
  return out;
}

std::string normalize_sentence(std::string_view text, const Charsmap& rules, const SpaceRules& spaces, const PieceTrie& symbols) {
  while (spaces.remove_extra_spaces && !text.empty()) {
    const Step step = step_of(text, rules, symbols);
    if (step.text != " ") break;
    text.remove_prefix(step.length);
  }
  if (text.empty()) return "";
  const std::string_view symbol = spaces.escape_spaces ? kSpaceSymbol : " ";
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  if (spaces.add_dummy_prefix && !spaces.symbol_behind) out += symbol;
  bool behind_space = spaces.remove_extra_spaces;
  while (!text.empty()) {
    const Step step = step_of(text, rules, symbols);
    std::string_view part = step.text;
    while (behind_space && part.starts_with(' ')) part.remove_prefix(1);
    append_escaped(out, part, spaces.escape_spaces);
    if (!part.empty()) behind_space = spaces.remove_extra_spaces && part.ends_with(' ');
    text.remove_prefix(step.length);
  }
  while (spaces.remove_extra_spaces && out.ends_with(symbol)) out.resize(out.size() - symbol.size());
  if (spaces.add_dummy_prefix && spaces.symbol_behind) out += symbol;
  return out;
}

}  // namespace penstock::text
