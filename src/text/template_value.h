#pragma once
// The values of a chat template: what Python's are to Jinja. For the .cpp files of this folder.
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace penstock::text {

struct TemplateList;
struct TemplateDict;
struct TemplateNamespace;
struct TemplateLoop;
struct TemplateStatement;
class TemplateValue;

struct TemplateUndefined {
  std::string what;  // "'tools' is undefined"
};
struct TemplateNone {};
// Something that can be called: a function of the environment, a macro, or a method of a value that is kept with it.
struct TemplateCallable {
  std::string name;
  std::shared_ptr<const TemplateValue> receiver;  // of a method, else null
  const TemplateStatement* macro = nullptr;       // of a macro, else null
};

// Cheap to copy: texts, lists and dicts are shared and never change. A list or dict holds at most kMaxBytes, and kMaxDepth others within
// each other, where what is shared counts as often as it would be written.
class TemplateValue {
 public:
  static constexpr int kMaxDepth = 100;
  static constexpr size_t kMaxBytes = 64 << 20;
  using Dict = std::vector<std::pair<TemplateValue, TemplateValue>>;  // keys: texts, numbers, booleans, none

  TemplateValue() : data_(TemplateUndefined{"the value is undefined"}) {}
  // Keeps the begin of `what`.
  static TemplateValue undefined(std::string_view what);
  static TemplateValue none();
  static TemplateValue boolean(bool value);
  static TemplateValue integer(int64_t value);
  static TemplateValue real(double value);
  // `safe`: Jinja's Markup, in which `+` escapes what joins it.
  static TemplateValue text(std::string value, bool safe = false);
  // Throw Error kInvalidArgument beyond these limits.
  static TemplateValue list(std::vector<TemplateValue> items, bool tuple = false);
  // What filters give that make their items one by one: a list whose truth is true even when it is empty, and no sequence to `is`.
  static TemplateValue generator(std::vector<TemplateValue> items);
  // The last value of a key counts, at the first one's place. REQUIRES: keys that can be keys.
  static TemplateValue dict(Dict items);
  static TemplateValue callable(TemplateCallable value);
  static TemplateValue names(std::shared_ptr<TemplateNamespace> value);
  static TemplateValue loop(std::shared_ptr<const TemplateLoop> value);
  // Throws Error kInvalidArgument for a number that is no 64-bit integer and no finite real.
  static TemplateValue from_json(const nlohmann::ordered_json& json);

  [[nodiscard]] bool is_undefined() const { return holds<TemplateUndefined>(); }
  [[nodiscard]] bool is_none() const { return holds<TemplateNone>(); }
  [[nodiscard]] bool is_boolean() const { return holds<bool>(); }
  [[nodiscard]] bool is_integer() const { return holds<int64_t>(); }
  [[nodiscard]] bool is_real() const { return holds<double>(); }
  [[nodiscard]] bool is_number() const { return is_integer() || is_real() || is_boolean(); }
  [[nodiscard]] bool is_text() const { return holds<std::shared_ptr<const std::string>>(); }
  [[nodiscard]] bool is_list() const { return holds<std::shared_ptr<const TemplateList>>(); }
  [[nodiscard]] bool is_dict() const { return holds<std::shared_ptr<const TemplateDict>>(); }

  // REQUIRES: the kind.
  [[nodiscard]] const std::string& why_undefined() const { return std::get<TemplateUndefined>(data_).what; }
  [[nodiscard]] int64_t as_integer() const;  // of a boolean too
  [[nodiscard]] double as_real() const;      // of any number
  [[nodiscard]] const std::string& as_text() const { return *std::get<std::shared_ptr<const std::string>>(data_); }
  [[nodiscard]] const std::vector<TemplateValue>& as_list() const;
  [[nodiscard]] bool is_tuple() const;
  [[nodiscard]] bool is_generator() const;
  [[nodiscard]] bool is_safe() const { return safe_; }
  [[nodiscard]] bool can_be_key() const { return is_text() || is_number() || is_none(); }
  [[nodiscard]] const Dict& as_dict() const;
  [[nodiscard]] const TemplateCallable* as_callable() const { return std::get_if<TemplateCallable>(&data_); }
  [[nodiscard]] TemplateNamespace* as_namespace() const;  // null for other kinds
  [[nodiscard]] const TemplateLoop* as_loop() const;      // null for other kinds

  // Null when this dict has no such key. As in Python, 1, 1.0 and true are one key.
  [[nodiscard]] const TemplateValue* find(const TemplateValue& key) const;
  [[nodiscard]] const TemplateValue* find(const std::string& key) const;

  [[nodiscard]] bool truth() const;
  [[nodiscard]] bool equals(const TemplateValue& other) const;
  // Roughly as many as it takes to write a text, list or dict; 0 for others.
  [[nodiscard]] size_t bytes() const;
  // Python's name of the type, for messages.
  [[nodiscard]] const char* type_name() const;
  // As Python's str() and, inside lists and dicts, repr().
  [[nodiscard]] std::string shown() const;
  [[nodiscard]] std::string repr() const;

 private:
  template <typename T>
  [[nodiscard]] bool holds() const {
    return std::holds_alternative<T>(data_);
  }
  static TemplateValue made_list(std::vector<TemplateValue> items, bool tuple, bool generator);
  [[nodiscard]] int depth() const;

  std::variant<TemplateUndefined, TemplateNone, bool, int64_t, double, std::shared_ptr<const std::string>, std::shared_ptr<const TemplateList>,
               std::shared_ptr<const TemplateDict>, std::shared_ptr<TemplateNamespace>, std::shared_ptr<const TemplateLoop>, TemplateCallable>
      data_;
  bool safe_ = false;  // of a text
};

struct TemplateList {
  std::vector<TemplateValue> items;
  bool tuple = false, generator = false;
  int depth = 1;
  size_t bytes = 0;  // roughly, when written
};

struct TemplateDict {
  TemplateValue::Dict items;                       // in the order of insertion
  std::unordered_map<std::string, size_t> places;  // by key: texts themselves, others behind a byte that no text begins with
  int depth = 1;
  size_t bytes = 0;
};

// What namespace() makes: the one kind of value that a template may change.
struct TemplateNamespace {
  std::unordered_map<std::string, TemplateValue> members;
};

// The variable `loop`.
struct TemplateLoop {
  size_t index0 = 0;
  std::shared_ptr<const TemplateList> items;
};

}  // namespace penstock::text
