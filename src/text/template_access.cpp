// How templates reach into values.
#include <algorithm>
#include <charconv>

#include "text/characters.h"
#include "text/template_builtins.h"

namespace penstock::text {
namespace {

TemplateValue loop_member(const TemplateLoop& loop, const std::string& name) {
  const auto count = static_cast<int64_t>(loop.items->items.size()), at = static_cast<int64_t>(loop.index0);
  if (name == "index") return TemplateValue::integer(at + 1);
  if (name == "index0") return TemplateValue::integer(at);
  if (name == "revindex") return TemplateValue::integer(count - at);
  if (name == "revindex0") return TemplateValue::integer(count - at - 1);
  if (name == "first") return TemplateValue::boolean(at == 0);
  if (name == "last") return TemplateValue::boolean(at + 1 == count);
  if (name == "length") return TemplateValue::integer(count);
  if (name == "depth") return TemplateValue::integer(1);
  if (name == "depth0") return TemplateValue::integer(0);
  if (name == "previtem") return at > 0 ? loop.items->items[loop.index0 - 1] : TemplateValue::undefined("there is no previous item");
  if (name == "nextitem") return at + 1 < count ? loop.items->items[loop.index0 + 1] : TemplateValue::undefined("there is no next item");
  throw TemplateProblem{Code::kUnimplemented, fmt::format("loop.{} is not supported", name)};
}

TemplateValue missing(const TemplateValue& value, const std::string& name) {
  return TemplateValue::undefined(fmt::format("'{} object' has no attribute '{}'", value.type_name(), name));
}

TemplateValue element(const TemplateValue& list, int64_t index) {
  const auto& items = list.as_list();
  const auto size = static_cast<int64_t>(items.size());
  if (index < -size || index >= size) return TemplateValue::undefined(fmt::format("{} object has no element {}", list.type_name(), index));
  return items[static_cast<size_t>(index < 0 ? index + size : index)];
}

TemplateValue character(const std::string& text, int64_t index, bool safe, TemplateBudget& budget) {
  constexpr int64_t kLongest = 4;  // bytes of a character
  const auto bytes = static_cast<int64_t>(text.size());
  budget.spend(index < 0 ? bytes / 16 : std::min(bytes, kLongest * std::min(index, bytes)) / 16);
  int64_t count = 0;
  if (index < 0) {
    for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    index += count;
  }
  count = 0;
  for (size_t at = 0; at < text.size(); ++count) {
    const size_t begin = at;
    (void)next_character(text, at);
    if (count == index) return TemplateValue::text(text.substr(begin, at - begin), safe);
  }
  return TemplateValue::undefined("the text has no such character");
}

}  // namespace

std::vector<TemplateValue> items_of(const TemplateValue& value, TemplateBudget& budget) {
  if (value.is_undefined()) return {};
  std::vector<TemplateValue> items;
  if (value.is_list()) {
    items = value.as_list();
  } else if (value.is_dict()) {
    for (const auto& item : value.as_dict()) items.push_back(item.first);
  } else if (value.is_text()) {
    const std::string& text = value.as_text();
    budget.spend(static_cast<int64_t>(text.size()));
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      (void)next_character(text, at);
      items.push_back(TemplateValue::text(text.substr(begin, at - begin)));
    }
  } else {
    throw template_problem("'{}' object is not iterable", value.type_name());
  }
  budget.spend(static_cast<int64_t>(items.size()));
  return items;
}

TemplateValue attribute_of(const TemplateValue& value, const std::string& name) {
  if (value.is_undefined()) throw template_problem("{}", value.why_undefined());
  if (const TemplateLoop* loop = value.as_loop(); loop != nullptr && !has_method(value, name)) return loop_member(*loop, name);
  if (const TemplateNamespace* names = value.as_namespace()) {
    const auto found = names->members.find(name);
    return found == names->members.end() ? missing(value, name) : found->second;
  }
  if (has_method(value, name)) return TemplateValue::callable({name, std::make_shared<const TemplateValue>(value), nullptr});
  if (value.is_dict()) {
    if (const TemplateValue* member = value.find(name)) return *member;
  }
  return missing(value, name);
}

TemplateValue item_of(const TemplateValue& value, const TemplateValue& key, TemplateBudget& budget) {
  budget.spend_bytes(key.is_text() ? key.bytes() : 8 * key.bytes());
  if (value.is_undefined()) throw template_problem("{}", value.why_undefined());
  if (key.is_undefined()) return missing(value, "Undefined");
  if (value.is_list() && (key.is_integer() || key.is_boolean())) return element(value, key.as_integer());
  if (value.is_text() && (key.is_integer() || key.is_boolean())) return character(value.as_text(), key.as_integer(), value.is_safe(), budget);
  if (!value.is_dict()) return key.is_text() ? attribute_of(value, key.as_text()) : missing(value, key.shown());
  const TemplateValue* member = value.find(key);
  return member == nullptr ? missing(value, key.shown()) : *member;
}

TemplateValue path_of(const TemplateValue& value, const std::string& path, TemplateBudget& budget) {
  TemplateValue reached = value;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('.', at), path.size());
    const std::string name = path.substr(at, end - at);
    int64_t index = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool number = parsed.ec == std::errc() && parsed.ptr == name.data() + name.size();
    reached = item_of(reached, number ? TemplateValue::integer(index) : TemplateValue::text(name), budget);
    at = end + 1;
  }
  return reached;
}

bool equal(const TemplateValue& a, const TemplateValue& b, TemplateBudget& budget) {
  const bool alike = a.is_text() ? b.is_text() && a.bytes() == b.bytes() : a.is_list() == b.is_list() && a.is_dict() == b.is_dict();
  if (alike) budget.spend(static_cast<int64_t>(std::min(a.bytes(), b.bytes()) / 16));
  return a.equals(b);
}

int compare(const TemplateValue& a, const TemplateValue& b, TemplateBudget& budget) {
  budget.spend(static_cast<int64_t>(std::min(a.bytes(), b.bytes()) / 16));
  if (a.is_number() && b.is_number()) {
    if (!a.is_real() && !b.is_real()) return a.as_integer() < b.as_integer() ? -1 : a.as_integer() > b.as_integer();
    return a.as_real() < b.as_real() ? -1 : a.as_real() > b.as_real();
  }
  if (a.is_text() && b.is_text()) return a.as_text().compare(b.as_text());  // the order of UTF-8 is that of code points
  if (a.is_list() && b.is_list() && a.is_tuple() == b.is_tuple()) {
    const auto &left = a.as_list(), &right = b.as_list();
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i) {
      if (!equal(left[i], right[i], budget)) return compare(left[i], right[i], budget);
    }
    return left.size() < right.size() ? -1 : left.size() > right.size();
  }
  for (const TemplateValue* side : {&a, &b}) {
    if (side->is_undefined()) throw template_problem("{}", side->why_undefined());
  }
  throw template_problem("'<' not supported between instances of '{}' and '{}'", a.type_name(), b.type_name());
}

bool contains(const TemplateValue& container, const TemplateValue& value, TemplateBudget& budget) {
  if (container.is_undefined()) return false;
  if (container.is_dict()) {
    budget.spend_bytes(value.is_text() ? value.bytes() : 0);
    return container.find(value) != nullptr;
  }
  if (container.is_list()) {
    const size_t count = container.as_list().size();
    budget.spend(static_cast<int64_t>(count + std::min(container.bytes(), count * value.bytes()) / 16));
    return std::any_of(container.as_list().begin(), container.as_list().end(), [&](const TemplateValue& item) { return item.equals(value); });
  }
  if (!container.is_text()) throw template_problem("argument of type '{}' is not iterable", container.type_name());
  if (!value.is_text()) throw template_problem("'in <string>' requires string as left operand, not {}", value.type_name());
  budget.spend_search(container.bytes(), value.bytes());
  return container.as_text().find(value.as_text()) != std::string::npos;
}

const TemplateValue* TemplateArguments::find(size_t index, const char* name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [given, value] : named) {
    if (given == name) return &value;
  }
  return nullptr;
}

const TemplateValue& TemplateArguments::require(size_t index, const char* name) const {
  const TemplateValue* value = find(index, name);
  if (value == nullptr) throw template_problem("argument '{}' is missing", name);
  return *value;
}

const std::string& TemplateArguments::text(size_t index, const char* name) const {
  const TemplateValue& value = require(index, name);
  if (!value.is_text()) throw template_problem("argument '{}': expected a text, found {}", name, value.type_name());
  return value.as_text();
}

int64_t TemplateArguments::integer_or(size_t index, const char* name, int64_t otherwise) const {
  const TemplateValue* value = find(index, name);
  if (value == nullptr || value->is_none()) return otherwise;
  if (!value->is_integer() && !value->is_boolean()) throw template_problem("argument '{}': expected an integer, found {}", name, value->type_name());
  return value->as_integer();
}

bool TemplateArguments::flag_or(size_t index, const char* name, bool otherwise) const {
  const TemplateValue* value = find(index, name);
  return value == nullptr ? otherwise : value->truth();
}

}  // namespace penstock::text
