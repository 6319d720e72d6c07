#pragma once
// A key of a configuration, declared once: its name, the variable it fills, its range and its meaning.
// Reading a file, --set key=value and printing all work from the same list of fields.
#include <climits>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace penstock::config {

// A key with its value as text, as a reader found it.
struct RawValue {
  enum class Kind { kScalar, kList, kMap, kNothing, kNested };  // kNested: a list that holds maps or lists
  std::string key;                 // with dots for maps inside maps
  int line = 0;                    // 0 = not from a file
  Kind kind = Kind::kScalar;
  std::vector<std::string> items;  // one for kScalar, any number for kList
  bool quoted = false;             // kScalar in quotes: text, never a number

  [[nodiscard]] std::string describe() const;  // as found, for messages: "'abc'", "a map"
};

struct IntRange {
  int64_t min = INT_MIN;
  int64_t max = INT_MAX;
};

struct RealRange {
  double min = 0;
  double max = std::numeric_limits<double>::max();
  bool min_excluded = false;
  bool max_excluded = false;
};

// One key. Borrows the variable it was made with, which must outlive it.
struct Field {
  std::string key;                                  // with dots
  std::string expected;                             // "an integer >= 1"
  std::string meaning;                              // printed beside the value; unit included
  std::function<bool(const RawValue&)> assign;      // false = does not fit `expected`, the variable is unchanged; absent = idle()
  std::function<std::string()> print;               // the value as YAML
  std::string note = {};                            // said when the key is given: why it does nothing
};

[[nodiscard]] Field integer_field(std::string key, int& target, IntRange range, std::string meaning);
[[nodiscard]] Field integer_field(std::string key, int64_t& target, IntRange range, std::string meaning);
[[nodiscard]] Field seconds_field(std::string key, seconds& target, IntRange range, std::string meaning);
[[nodiscard]] Field real_field(std::string key, double& target, RealRange range, std::string meaning);
[[nodiscard]] Field boolean_field(std::string key, bool& target, std::string meaning);
// Of at most `most_bytes`, in a list each of them.
[[nodiscard]] Field text_field(std::string key, std::string& target, std::string meaning, size_t most_bytes = SIZE_MAX);
// A string counts as a list of one.
[[nodiscard]] Field text_list_field(std::string key, std::vector<std::string>& target, std::string meaning, size_t most_bytes = SIZE_MAX);
[[nodiscard]] Field integer_list_field(std::string key, std::vector<int>& target, IntRange range, std::string meaning);
// A key that is known and does nothing, with all that stands below it, whatever its value: reported as a note that says why.
[[nodiscard]] Field idle(std::string key, std::string why);
// A key that does nothing, but whose value must be right all the same.
[[nodiscard]] Field noted(Field field, std::string why);

// One word of a few; letter case does not matter.
template <typename Enum>
[[nodiscard]] Field choice_field(std::string key, Enum& target, std::vector<std::pair<std::string, Enum>> words, std::string meaning);

// What came of filling the fields.
struct Filled {
  std::map<std::string, int> lines;  // of every key that was given
  std::vector<std::string> notes;    // "FILE:LINE: KEY: not supported yet"
};

// Assigns every value to its field. Errors: kInvalidArgument
//   "FILE:LINE: key 'a.b': expected an integer >= 1, found 'abc'"
//   "FILE:LINE: unknown key 'a.c'; did you mean 'a.b'?"
[[nodiscard]] Result<Filled> fill(const std::vector<Field>& fields, const std::vector<RawValue>& values, const std::string& file);

// "FILE:LINE: ", or "FILE: " for line 0: how every message about a key begins.
[[nodiscard]] std::string place(const std::string& file, int line);

// All fields as a YAML document, each with its meaning as a comment. Fields of one map stand next to each other.
[[nodiscard]] std::string print_yaml(const std::vector<Field>& fields);

// --- choice_field ---
namespace detail {
[[nodiscard]] Field choice_field(std::string key, std::vector<std::string> words, std::function<void(size_t)> set,
                                 std::function<size_t()> get, std::string meaning);
}  // namespace detail

template <typename Enum>
Field choice_field(std::string key, Enum& target, std::vector<std::pair<std::string, Enum>> words, std::string meaning) {
  std::vector<std::string> names;
  std::vector<Enum> values;
  for (auto& [name, value] : words) {
    names.push_back(name);
    values.push_back(value);
  }
  auto set = [&target, values](size_t i) { target = values[i]; };
  auto get = [&target, values] {
    size_t i = 0;
    while (i + 1 < values.size() && values[i] != target) ++i;
    return i;
  };
  return detail::choice_field(std::move(key), std::move(names), set, get, std::move(meaning));
}

}  // namespace penstock::config
