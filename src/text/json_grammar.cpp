#include "text/json_grammar.h"

#include <algorithm>
#include <map>
#include <string>

namespace penstock::text {
namespace {

constexpr int kIndent = 32;
constexpr int kIntegerDigits = 18;
constexpr int kFractionDigits = 16;
constexpr int64_t kLargestInteger = 999'999'999'999'999'999;

}  // namespace

JsonGrammar::Rule JsonGrammar::space_rule() {
  if (space_) return *space_;
  space_ = grammar_.rule();
  const State start = grammar_.start(*space_), end = grammar_.end(*space_);
  grammar_.skip(start, end);
  grammar_.bytes(start, ' ', ' ', end);
  State at = grammar_.literal(start, "\n");
  for (int i = 0; i < kIndent; ++i) {
    grammar_.skip(at, end);
    const State next = grammar_.state();
    grammar_.bytes(at, ' ', ' ', next);
    grammar_.bytes(at, '\t', '\t', next);
    at = next;
  }
  grammar_.skip(at, end);
  return *space_;
}

JsonGrammar::State JsonGrammar::space(State from) { return grammar_.called(from, space_rule()); }

// After "\u": a character, or a pair of surrogates.
void JsonGrammar::add_unicode_escape(State from, State to) {
  const auto hex = [&](State at, State next) {
    grammar_.bytes(at, '0', '9', next);
    grammar_.bytes(at, 'a', 'f', next);
    grammar_.bytes(at, 'A', 'F', next);
  };
  const auto hexes = [&](State at, int count, State next) {
    for (; count > 1; --count) {
      const State between = grammar_.state();
      hex(at, between);
      at = between;
    }
    hex(at, next);
  };
  const auto d = [&](State at, State next) {
    grammar_.bytes(at, 'd', 'd', next);
    grammar_.bytes(at, 'D', 'D', next);
  };
  const State other = grammar_.state(), after_d = grammar_.state(), plain = grammar_.state(), high = grammar_.state(), high_end = grammar_.state();
  grammar_.bytes(from, '0', '9', other);
  for (const char c : {'a', 'A'}) {
    grammar_.bytes(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c + 2), other);
    grammar_.bytes(from, static_cast<uint8_t>(c + 4), static_cast<uint8_t>(c + 5), other);
    grammar_.bytes(after_d, static_cast<uint8_t>(c), static_cast<uint8_t>(c + 1), high);
  }
  hexes(other, 3, to);
  d(from, after_d);
  grammar_.bytes(after_d, '0', '7', plain);
  hexes(plain, 2, to);
  grammar_.bytes(after_d, '8', '9', high);
  hexes(high, 2, high_end);
  const State low = grammar_.literal(high_end, "\\u"), low_d = grammar_.state(), low_digit = grammar_.state();
  d(low, low_d);
  for (const char c : {'c', 'C'}) grammar_.bytes(low_d, static_cast<uint8_t>(c), static_cast<uint8_t>(c + 3), low_digit);
  hexes(low_digit, 2, to);
}

// One character of a string, however it is written.
JsonGrammar::Rule JsonGrammar::character_rule() {
  if (character_) return *character_;
  character_ = grammar_.rule();
  const State start = grammar_.start(*character_), end = grammar_.end(*character_);
  add_character(grammar_, start, plain_in_json(), end, Spelling::kPlain);
  const State escape = grammar_.literal(start, "\\");
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) grammar_.bytes(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), end);
  add_unicode_escape(grammar_.literal(escape, "u"), end);
  return *character_;
}

JsonGrammar::State JsonGrammar::string(State from, int64_t min_length, std::optional<int64_t> max_length) {
  State at = grammar_.literal(from, "\"");
  for (int64_t i = 0; i < min_length; ++i) at = grammar_.called(at, character_rule());
  const State end = grammar_.state();
  if (!max_length) {
    const State loop = grammar_.state();
    grammar_.skip(at, loop);
    grammar_.call(loop, character_rule(), loop);
    at = loop;
  } else {
    for (int64_t i = min_length; i < *max_length; ++i) {
      grammar_.bytes(at, '"', '"', end);
      at = grammar_.called(at, character_rule());
    }
  }
  grammar_.bytes(at, '"', '"', end);
  return end;
}

// `min` to `max` digits.
JsonGrammar::State JsonGrammar::digits(State from, int min, int max) {
  const State to = grammar_.state();
  for (int i = 0; i < max; ++i) {
    if (i >= min) grammar_.skip(from, to);
    const State next = grammar_.state();
    grammar_.bytes(from, '0', '9', next);
    from = next;
  }
  grammar_.skip(from, to);
  return to;
}

JsonGrammar::State JsonGrammar::number(State from, bool negative_too) {
  const State whole = grammar_.state(), fraction = grammar_.state(), to = grammar_.state();
  if (negative_too) {
    const State minus = grammar_.literal(from, "-");
    add_digits(minus, 0, kLargestInteger, whole);
  }
  add_digits(from, 0, kLargestInteger, whole);
  grammar_.skip(whole, fraction);
  grammar_.skip(digits(grammar_.literal(whole, "."), 1, kFractionDigits), fraction);
  grammar_.skip(fraction, to);
  const State exponent = grammar_.state(), sign = grammar_.state();
  for (const char c : {'e', 'E'}) grammar_.bytes(fraction, static_cast<uint8_t>(c), static_cast<uint8_t>(c), exponent);
  grammar_.skip(exponent, sign);
  for (const char c : {'+', '-'}) grammar_.bytes(exponent, static_cast<uint8_t>(c), static_cast<uint8_t>(c), sign);
  grammar_.skip(digits(sign, 1, 2), to);
  return to;
}

JsonGrammar::State JsonGrammar::integer(State from, std::optional<int64_t> minimum, std::optional<int64_t> maximum) {
  const int64_t low = std::max(minimum.value_or(-kLargestInteger), -kLargestInteger), high = std::min(maximum.value_or(kLargestInteger), kLargestInteger);
  const State to = grammar_.state();
  if (high >= 0 && low <= high) add_digits(from, static_cast<uint64_t>(std::max<int64_t>(0, low)), static_cast<uint64_t>(high), to);
  if (low < 0 && low <= high) add_digits(grammar_.literal(from, "-"), static_cast<uint64_t>(std::max<int64_t>(1, -high)), static_cast<uint64_t>(-low), to);
  return to;
}

// The numbers from low to high, without leading zeros. For each length an automaton that knows whether it still follows the digits of either bound.
void JsonGrammar::add_digits(State from, uint64_t low, uint64_t high, State to) {
  uint64_t first = 0, last = 9;  // of those with `length` digits
  for (int length = 1; length <= kIntegerDigits; ++length, first = last + 1, last = 10 * last + 9) {
    if (std::max(low, first) > std::min(high, last)) continue;
    const std::string a = std::to_string(std::max(low, first)), b = std::to_string(std::min(high, last));
    std::map<std::pair<bool, bool>, State> states = {{{true, true}, from}};
    for (size_t i = 0; i < a.size(); ++i) {
      std::map<std::pair<bool, bool>, State> next;
      for (const auto& [follows, state] : states) {
        const char least = follows.first ? a[i] : '0', most = follows.second ? b[i] : '9';
        for (char digit = least; digit <= most; ++digit) {
          const std::pair<bool, bool> still{follows.first && digit == a[i], follows.second && digit == b[i]};
          const auto [place, fresh] = next.try_emplace(still, to);
          if (fresh && i + 1 < a.size()) place->second = grammar_.state();
          grammar_.bytes(state, static_cast<uint8_t>(digit), static_cast<uint8_t>(digit), place->second);
        }
      }
      states = std::move(next);
    }
  }
}

JsonGrammar::Members JsonGrammar::open_object(State from) {
  const State first = space(grammar_.literal(from, "{"));
  return {first, grammar_.state()};
}

JsonGrammar::State JsonGrammar::close_object(const Members& members) {
  const State to = grammar_.state();
  grammar_.bytes(members.first, '}', '}', to);
  grammar_.bytes(space(members.rest), '}', '}', to);
  return to;
}

JsonGrammar::State JsonGrammar::before_key(const Members& members) {
  const State key = grammar_.state();
  grammar_.skip(members.first, key);
  grammar_.skip(space(grammar_.literal(members.rest, ",")), key);
  return key;
}

JsonGrammar::State JsonGrammar::value_after_key(State from, Rule value) { return grammar_.called(space(grammar_.literal(from, ":")), value); }

void JsonGrammar::more_members(const Members& members, const std::vector<std::u32string>& taken, Rule value) {
  const State free = grammar_.state(), key_end = grammar_.state();  // `free`: the key is no beginning of one that is taken
  add_character(grammar_, free, plain_in_json(), free, Spelling::kPlain);
  grammar_.bytes(free, '"', '"', key_end);
  struct Beginning {  // of keys that are taken
    State state;
    std::map<char32_t, size_t> next = {};
    bool is_key = false;
  };
  std::vector<Beginning> beginnings = {{grammar_.state()}};
  for (const std::u32string& key : taken) {
    size_t at = 0;
    for (const char32_t c : key) {
      const auto [place, fresh] = beginnings[at].next.try_emplace(c, beginnings.size());
      at = place->second;
      if (fresh) beginnings.push_back({grammar_.state()});
    }
    beginnings[at].is_key = true;
  }
  for (const Beginning& beginning : beginnings) {
    if (!beginning.is_key) grammar_.bytes(beginning.state, '"', '"', key_end);
    CodePointSet followed;
    for (const auto& [c, next] : beginning.next) {
      followed.add(c, c);
      if (plain_in_json().contains(c)) add_character(grammar_, beginning.state, {{c, c}}, beginnings[next].state, Spelling::kPlain);
    }
    add_character(grammar_, beginning.state, plain_in_json().without(followed), free, Spelling::kPlain);
  }
  grammar_.skip(grammar_.literal(before_key(members), "\""), beginnings[0].state);
  grammar_.skip(value_after_key(key_end, value), members.rest);
}

JsonGrammar::State JsonGrammar::array(State from, int64_t min, std::optional<int64_t> max, const std::function<Rule(int64_t)>& item, int64_t distinct_items) {
  const State to = grammar_.state();
  State at = space(grammar_.literal(from, "["));
  if (min == 0) grammar_.bytes(at, ']', ']', to);
  if (max && *max == 0) return to;
  const auto close = [&](State state) { grammar_.bytes(space(state), ']', ']', to); };
  const auto comma = [&](State state) { return space(grammar_.literal(state, ",")); };
  // Items that are told apart or counted, one after the other; then, without a maximum, any number of the last kind.
  const int64_t counted = max.value_or(std::max(std::max<int64_t>(min, 1), distinct_items));
  for (int64_t i = 0; i < counted; ++i) {
    if (i > 0) at = comma(at);
    at = grammar_.called(at, item(i));
    if (i + 1 >= min && i + 1 < counted) close(at);
  }
  if (!max) grammar_.call(comma(at), item(counted), at);
  close(at);
  return to;
}

JsonGrammar::State JsonGrammar::any_object(State from) {
  const Members members = open_object(from);
  grammar_.skip(value_after_key(string(before_key(members), 0, std::nullopt), any_value()), members.rest);
  return close_object(members);
}

JsonGrammar::Rule JsonGrammar::any_value() {
  if (any_) return *any_;
  any_ = grammar_.rule();
  const State start = grammar_.start(*any_), end = grammar_.end(*any_);
  grammar_.skip(any_object(start), end);
  grammar_.skip(array(start, 0, std::nullopt, [&](int64_t) { return *any_; }, 0), end);
  grammar_.skip(string(start, 0, std::nullopt), end);
  grammar_.skip(number(start, /*negative_too=*/true), end);
  for (const char* word : {"true", "false", "null"}) grammar_.skip(grammar_.literal(start, word), end);
  return *any_;
}

}  // namespace penstock::text
