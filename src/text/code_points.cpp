#include "text/code_points.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/utf8.h"

namespace penstock::text {
namespace {

using State = GrammarBuilder::State;
using Range = std::pair<char32_t, char32_t>;

// Ranges that are written in equally many bytes.
constexpr Range kSameLength[] = {{0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};

// Adds the characters of one set between two states.
class CharacterWriter {
 public:
  CharacterWriter(GrammarBuilder& grammar, State to) : grammar_(grammar), any_rest_{to, -1, -1, -1} {}

  void add(State from, Range range) {
    for (const auto& [first, last] : kSameLength) {
      const char32_t low = std::max(range.first, first), high = std::min(range.second, last);
      if (low > high) continue;
      std::string a, b;
      append_utf8(a, low);
      append_utf8(b, high);
      add(from, a, b);
    }
  }

 private:
  static constexpr uint8_t kLowest = 0x80, kHighest = 0xBF;  // of bytes that continue a character

  // From here, `count` bytes of any kind that continue a character.
  State any_rest(size_t count) {
    if (any_rest_[count] < 0) {
      any_rest_[count] = grammar_.state();
      grammar_.bytes(any_rest_[count], kLowest, kHighest, any_rest(count - 1));
    }
    return any_rest_[count];
  }

  // The texts between a and b, which are equally long.
  void add(State from, std::string_view a, std::string_view b) {
    auto low = static_cast<uint8_t>(a[0]), high = static_cast<uint8_t>(b[0]);
    const std::string_view rest_a = a.substr(1), rest_b = b.substr(1);
    const auto one = [&](uint8_t byte, std::string_view from_rest, std::string_view to_rest) {
      const State next = grammar_.state();
      grammar_.bytes(from, byte, byte, next);
      add(next, from_rest, to_rest);
    };
    const std::string lowest(rest_a.size(), static_cast<char>(kLowest)), highest(rest_a.size(), static_cast<char>(kHighest));
    if (!rest_a.empty() && low == high && (rest_a != lowest || rest_b != highest)) return one(low, rest_a, rest_b);
    if (rest_a != lowest) one(low++, rest_a, highest);
    if (rest_b != highest) one(high--, lowest, rest_b);
    if (low <= high) grammar_.bytes(from, low, high, any_rest(rest_a.size()));
  }

  GrammarBuilder& grammar_;
  std::array<State, 4> any_rest_;  // -1: not made yet
};

std::string json_escape(char32_t c) {
  switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\b': return "\\b";
    case '\f': return "\\f";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: return fmt::format("\\u{:04x}", static_cast<unsigned>(c));
  }
}

}  // namespace

CodePointSet::CodePointSet(std::initializer_list<Range> ranges) {
  for (const auto& [low, high] : ranges) add(low, high);
}

void CodePointSet::add(char32_t low, char32_t high) {
  if (low <= high) ranges_.emplace_back(low, high);
}

void CodePointSet::add(const CodePointSet& other) { ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end()); }

std::vector<Range> CodePointSet::ranges() const {
  std::vector<Range> sorted = ranges_, joined;
  std::sort(sorted.begin(), sorted.end());
  for (const Range& range : sorted) {
    if (!joined.empty() && range.first <= joined.back().second + 1) joined.back().second = std::max(joined.back().second, range.second);
    else joined.push_back(range);
  }
  return joined;
}

CodePointSet CodePointSet::inverse() const {
  CodePointSet result;
  char32_t next = 0;
  for (const auto& [low, high] : ranges()) {
    if (low > next) result.add(next, low - 1);
    next = high + 1;
  }
  if (next <= 0x10FFFF) result.add(next, 0x10FFFF);
  return result;
}

CodePointSet CodePointSet::intersection(const CodePointSet& other) const {
  CodePointSet neither = inverse();
  neither.add(other.inverse());
  return neither.inverse();
}

bool CodePointSet::contains(char32_t code_point) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& range) { return range.first <= code_point && code_point <= range.second; });
}

const CodePointSet& plain_in_json() {
  static const CodePointSet set{{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
  return set;
}

void add_character(GrammarBuilder& grammar, State from, const CodePointSet& set, State to, Spelling spelling) {
  CharacterWriter writer(grammar, to);
  const bool json = spelling == Spelling::kJsonString;
  for (const Range& range : (json ? set.intersection(plain_in_json()) : set).ranges()) writer.add(from, range);
  if (!json) return;
  for (const auto& [low, high] : set.without(plain_in_json()).ranges()) {
    for (char32_t c = low; c <= high; ++c) {
      const std::string escape = json_escape(c);
      const State before_last = grammar.literal(from, std::string_view(escape).substr(0, escape.size() - 1));
      grammar.bytes(before_last, static_cast<uint8_t>(escape.back()), static_cast<uint8_t>(escape.back()), to);
    }
  }
}

}  // namespace penstock::text
