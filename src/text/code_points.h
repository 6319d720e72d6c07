#pragma once
// Sets of characters, and the bytes that they are written as. For the .cpp files of this folder.
#include <cstdint>
#include <utility>
#include <vector>

#include "text/grammar.h"

namespace penstock::text {

// Unicode scalar values; surrogates are never among them.
class CodePointSet {
 public:
  CodePointSet() = default;
  CodePointSet(std::initializer_list<std::pair<char32_t, char32_t>> ranges);
  static CodePointSet all() { return {{0, 0x10FFFF}}; }

  void add(char32_t low, char32_t high);
  void add(const CodePointSet& other);
  [[nodiscard]] CodePointSet inverse() const;
  [[nodiscard]] CodePointSet intersection(const CodePointSet& other) const;
  [[nodiscard]] CodePointSet without(const CodePointSet& other) const { return intersection(other.inverse()); }
  [[nodiscard]] bool contains(char32_t code_point) const;
  // Disjoint, rising.
  [[nodiscard]] std::vector<std::pair<char32_t, char32_t>> ranges() const;

 private:
  std::vector<std::pair<char32_t, char32_t>> ranges_;
};

// What a character of a text is written as: itself, or as in a JSON string, where some are escaped, each in one way.
enum class Spelling { kPlain, kJsonString };

// Characters that stand for themselves in a JSON string.
[[nodiscard]] const CodePointSet& plain_in_json();

// One character of the set, in UTF-8.
void add_character(GrammarBuilder& grammar, GrammarBuilder::State from, const CodePointSet& set, GrammarBuilder::State to, Spelling spelling);

}  // namespace penstock::text
