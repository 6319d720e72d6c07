#pragma once
// The rules of JSON texts. For the .cpp files of this folder.
#include <cstdint>
#include <functional>
#include <optional>

#include "text/code_points.h"
#include "text/grammar.h"

namespace penstock::text {

// What is written is a part of JSON on which all readers agree: between tokens nothing, a space, or a line end and up to 32 spaces or tabs (before
// ':' and ',' nothing); integers of at most 18 digits, numbers whose exponents have at most two; escapes of surrogates only in pairs.
//
// Each method goes on from `from` and answers where it ends. Rules are made when they are first asked for.
class JsonGrammar {
 public:
  using State = GrammarBuilder::State;
  using Rule = GrammarBuilder::Rule;
  explicit JsonGrammar(GrammarBuilder& grammar) : grammar_(grammar) {}

  [[nodiscard]] State space(State from);
  [[nodiscard]] State string(State from, int64_t min_length, std::optional<int64_t> max_length);  // in characters
  [[nodiscard]] State number(State from, bool negative_too);
  [[nodiscard]] State integer(State from, std::optional<int64_t> minimum, std::optional<int64_t> maximum);
  // {"key": ...} or []: any members, any items.
  [[nodiscard]] State any_object(State from);
  [[nodiscard]] Rule any_value();

  // Of an object: from before its members, with `first` the state in which there is none yet and `rest` that after one.
  struct Members {
    State first, rest;
  };
  [[nodiscard]] Members open_object(State from);
  [[nodiscard]] State close_object(const Members& members);
  // Members with keys that are not among `taken`, as many as one likes; keys are written without escapes.
  void more_members(const Members& members, const std::vector<std::u32string>& taken, Rule value);
  // From where a member may begin, over what is between members, to where its key begins.
  [[nodiscard]] State before_key(const Members& members);
  [[nodiscard]] State value_after_key(State from, Rule value);

  // [...] with `min` to `max` items. `item` is the rule of the item of an index.
  [[nodiscard]] State array(State from, int64_t min, std::optional<int64_t> max, const std::function<Rule(int64_t)>& item, int64_t distinct_items);

 private:
  [[nodiscard]] Rule space_rule();
  [[nodiscard]] Rule character_rule();
  void add_unicode_escape(State from, State to);
  void add_digits(State from, uint64_t low, uint64_t high, State to);
  [[nodiscard]] State digits(State from, int min, int max);

  GrammarBuilder& grammar_;
  std::optional<Rule> space_, character_, any_;
};

}  // namespace penstock::text
