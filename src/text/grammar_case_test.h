#pragma once
// Grammars asked for texts. For the tests of this folder.
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "text/grammar_states.h"
#include "text/text_constraint.h"

namespace penstock::text {

class GrammarCase {
 public:
  GrammarCase(TextConstraint::Kind kind, const std::string& source)
      : states_(std::make_shared<const Grammar>(constraint_grammar({kind, source}).value())) {}

  bool fits(std::string_view text) {
    states_.begin_work();
    auto place = states_.start();
    for (const char c : text) {
      place = states_.next(place, static_cast<uint8_t>(c));
      if (place == GrammarStates::kNowhere) return false;
    }
    return states_.accepts(place);
  }

  // A text that fits, by random bytes of those that go on; after `soon` bytes it takes ways out where it finds them. nullopt: it found none in time.
  std::optional<std::string> random_text(std::mt19937& random, size_t soon) {
    states_.begin_work();
    std::string text;
    auto place = states_.start();
    while (text.size() < soon + 50000) {
      if (!states_.goes_on(place)) return text;
      if (states_.accepts(place) && (text.size() >= soon || random() % 3 == 0)) return text;
      const std::string way_out = "\"]}0";
      auto next = GrammarStates::kNowhere;
      uint8_t byte = 0;
      const bool leave = text.size() >= soon && random() % 2 == 0;
      for (size_t i = 0; leave && next == GrammarStates::kNowhere && i < way_out.size(); ++i) {
        next = states_.next(place, byte = static_cast<uint8_t>(way_out[i]));
      }
      for (int tries = 0; next == GrammarStates::kNowhere; ++tries) {
        // Printable ones first: most of the others only continue characters.
        byte = static_cast<uint8_t>(tries < 40 && random() % 4 != 0 ? 0x20 + random() % 0x5F : random() % 256);
        next = states_.next(place, byte);
      }
      text += static_cast<char>(byte);
      place = next;
    }
    return std::nullopt;
  }

 private:
  GrammarStates states_;
};

inline std::string refusal_of(TextConstraint::Kind kind, const std::string& source) {
  const auto grammar = constraint_grammar({kind, source});
  return grammar ? "" : grammar.error().message();
}

}  // namespace penstock::text
