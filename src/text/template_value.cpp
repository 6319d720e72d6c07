#include "text/template_value.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "text/characters.h"

namespace penstock::text {
namespace {

std::string real_text(double value) {
  if (std::isnan(value)) return "nan";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".einf") == std::string::npos) text += ".0";
  return text;
}

// As Python's repr(): characters that do not print are escaped.
std::string quoted(const std::string& text) {
  const char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_character(text, at);
    const auto code = static_cast<uint32_t>(c);
    if (c == '\\' || c == static_cast<unsigned char>(quote)) out += fmt::format("\\{}", static_cast<char>(c));
    else if (c == '\n') out += "\\n";
    else if (c == '\r') out += "\\r";
    else if (c == '\t') out += "\\t";
    else if (c == ' ' || is_printable(c)) out += text.substr(begin, at - begin);
    else if (code < 0x100) out += fmt::format("\\x{:02x}", code);
    else if (code < 0x10000) out += fmt::format("\\u{:04x}", code);
    else out += fmt::format("\\U{:08x}", code);
  }
  return out + quote;
}

constexpr size_t kItemBytes = 8;  // what an item counts beside its text

void check_size(int depth, size_t bytes) {
  if (depth > TemplateValue::kMaxDepth) throw error(Code::kInvalidArgument, "a list or dict is nested deeper than {}", TemplateValue::kMaxDepth);
  if (bytes > TemplateValue::kMaxBytes) throw error(Code::kInvalidArgument, "a list or dict holds more than {} bytes", TemplateValue::kMaxBytes);
}

// The name of a key in TemplateDict::places.
std::string place_name(const TemplateValue& key) {
  if (key.is_text()) return key.as_text();
  if (key.is_none()) return "\xFFnone";
  PENSTOCK_CHECK(key.is_number(), "a key of a dict is a {}", key.type_name());
  const bool whole = !key.is_real() || (key.as_real() == std::floor(key.as_real()) && std::abs(key.as_real()) < 9e18);
  return whole ? fmt::format("\xFF{}", key.is_real() ? static_cast<int64_t>(key.as_real()) : key.as_integer()) : fmt::format("\xFF{}", key.as_real());
}

}  // namespace

TemplateValue TemplateValue::undefined(std::string_view what) {
  constexpr size_t kMaxWhy = 500;  // bytes: each copy of the value has its own
  TemplateValue value;
  value.data_ = TemplateUndefined{std::string(utf8_prefix(what, kMaxWhy))};
  return value;
}
TemplateValue TemplateValue::none() {
  TemplateValue value;
  value.data_ = TemplateNone{};
  return value;
}
TemplateValue TemplateValue::boolean(bool value) {
  TemplateValue result;
  result.data_ = value;
  return result;
}
TemplateValue TemplateValue::integer(int64_t value) {
  TemplateValue result;
  result.data_ = value;
  return result;
}
TemplateValue TemplateValue::real(double value) {
  TemplateValue result;
  result.data_ = value;
  return result;
}
TemplateValue TemplateValue::text(std::string value, bool safe) {
  TemplateValue result;
  result.safe_ = safe;
  result.data_ = std::make_shared<const std::string>(std::move(value));
  return result;
}
TemplateValue TemplateValue::callable(TemplateCallable value) {
  TemplateValue result;
  result.data_ = std::move(value);
  return result;
}
TemplateValue TemplateValue::names(std::shared_ptr<TemplateNamespace> value) {
  TemplateValue result;
  result.data_ = std::move(value);
  return result;
}
TemplateValue TemplateValue::loop(std::shared_ptr<const TemplateLoop> value) {
  TemplateValue result;
  result.data_ = std::move(value);
  return result;
}

TemplateValue TemplateValue::list(std::vector<TemplateValue> items, bool tuple) { return made_list(std::move(items), tuple, false); }
TemplateValue TemplateValue::generator(std::vector<TemplateValue> items) { return made_list(std::move(items), false, true); }

TemplateValue TemplateValue::made_list(std::vector<TemplateValue> items, bool tuple, bool generator) {
  auto list = std::make_shared<TemplateList>();
  for (const TemplateValue& item : items) {
    list->depth = std::max(list->depth, item.depth() + 1);
    list->bytes += item.bytes() + kItemBytes;
  }
  check_size(list->depth, list->bytes);
  list->items = std::move(items);
  list->tuple = tuple;
  list->generator = generator;
  TemplateValue value;
  value.data_ = std::shared_ptr<const TemplateList>(std::move(list));
  return value;
}

TemplateValue TemplateValue::dict(Dict items) {
  auto dict = std::make_shared<TemplateDict>();
  for (auto& [key, item] : items) {
    dict->depth = std::max(dict->depth, item.depth() + 1);
    dict->bytes += key.bytes() + item.bytes() + kItemBytes;
    const auto [place, fresh] = dict->places.emplace(place_name(key), dict->items.size());
    if (fresh) dict->items.emplace_back(key, std::move(item));
    else dict->items[place->second].second = std::move(item);
  }
  check_size(dict->depth, dict->bytes);
  TemplateValue value;
  value.data_ = std::shared_ptr<const TemplateDict>(std::move(dict));
  return value;
}

TemplateValue TemplateValue::from_json(const nlohmann::ordered_json& json) {
  if (json.is_null()) return none();
  if (json.is_boolean()) return boolean(json.get<bool>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > INT64_MAX) return real(static_cast<double>(json.get<uint64_t>()));
  if (json.is_number_integer()) return integer(json.get<int64_t>());
  if (json.is_number()) return real(json.get<double>());
  if (json.is_string()) return text(json.get<std::string>());
  if (json.is_array()) {
    std::vector<TemplateValue> items;
    for (const auto& item : json) items.push_back(from_json(item));
    return list(std::move(items));
  }
  Dict items;
  for (const auto& [key, item] : json.items()) items.emplace_back(text(key), from_json(item));
  return dict(std::move(items));
}

int64_t TemplateValue::as_integer() const { return is_boolean() ? static_cast<int64_t>(std::get<bool>(data_)) : std::get<int64_t>(data_); }
double TemplateValue::as_real() const { return is_real() ? std::get<double>(data_) : static_cast<double>(as_integer()); }
const std::vector<TemplateValue>& TemplateValue::as_list() const { return std::get<std::shared_ptr<const TemplateList>>(data_)->items; }
bool TemplateValue::is_tuple() const { return is_list() && std::get<std::shared_ptr<const TemplateList>>(data_)->tuple; }
bool TemplateValue::is_generator() const { return is_list() && std::get<std::shared_ptr<const TemplateList>>(data_)->generator; }
const TemplateValue::Dict& TemplateValue::as_dict() const { return std::get<std::shared_ptr<const TemplateDict>>(data_)->items; }

TemplateNamespace* TemplateValue::as_namespace() const {
  const auto* names = std::get_if<std::shared_ptr<TemplateNamespace>>(&data_);
  return names == nullptr ? nullptr : names->get();
}
const TemplateLoop* TemplateValue::as_loop() const {
  const auto* loop = std::get_if<std::shared_ptr<const TemplateLoop>>(&data_);
  return loop == nullptr ? nullptr : loop->get();
}

const TemplateValue* TemplateValue::find(const TemplateValue& key) const { return key.can_be_key() ? find(place_name(key)) : nullptr; }

const TemplateValue* TemplateValue::find(const std::string& key) const {
  const auto& dict = *std::get<std::shared_ptr<const TemplateDict>>(data_);
  const auto place = dict.places.find(key);
  return place == dict.places.end() ? nullptr : &dict.items[place->second].second;
}

int TemplateValue::depth() const {
  if (is_list()) return std::get<std::shared_ptr<const TemplateList>>(data_)->depth;
  return is_dict() ? std::get<std::shared_ptr<const TemplateDict>>(data_)->depth : 0;
}

size_t TemplateValue::bytes() const {
  if (is_text()) return as_text().size();
  if (is_list()) return std::get<std::shared_ptr<const TemplateList>>(data_)->bytes;
  return is_dict() ? std::get<std::shared_ptr<const TemplateDict>>(data_)->bytes : 0;
}

bool TemplateValue::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return as_real() != 0;
  if (is_text()) return !as_text().empty();
  if (is_list()) return is_generator() || !as_list().empty();
  return !is_dict() || !as_dict().empty();
}

bool TemplateValue::equals(const TemplateValue& other) const {
  if (is_number() && other.is_number()) return is_real() || other.is_real() ? as_real() == other.as_real() : as_integer() == other.as_integer();
  if (data_.index() != other.data_.index()) return false;
  if (is_undefined() || is_none()) return true;
  if (is_text()) return as_text() == other.as_text();
  if (is_list()) {
    return is_tuple() == other.is_tuple() && std::equal(as_list().begin(), as_list().end(), other.as_list().begin(), other.as_list().end(),
                                                        [](const auto& a, const auto& b) { return a.equals(b); });
  }
  if (is_dict()) {
    if (other.bytes() < bytes()) return other.equals(*this);  // the keys of the smaller one are looked up
    return as_dict().size() == other.as_dict().size() && std::all_of(as_dict().begin(), as_dict().end(), [&](const auto& item) {
             const TemplateValue* same = other.find(item.first);
             return same != nullptr && item.second.equals(*same);
           });
  }
  return as_namespace() != nullptr ? as_namespace() == other.as_namespace() : as_loop() != nullptr && as_loop() == other.as_loop();
}

const char* TemplateValue::type_name() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_boolean()) return "bool";
  if (is_integer()) return "int";
  if (is_real()) return "float";
  if (is_text()) return "str";
  if (is_list()) return is_tuple() ? "tuple" : is_generator() ? "generator" : "list";
  if (is_dict()) return "dict";
  if (as_namespace() != nullptr) return "namespace";
  return as_loop() != nullptr ? "loop" : "function";
}

std::string TemplateValue::shown() const {
  if (is_undefined()) return "";
  return is_text() ? as_text() : repr();
}

std::string TemplateValue::repr() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "None";
  if (is_boolean()) return truth() ? "True" : "False";
  if (is_integer()) return std::to_string(as_integer());
  if (is_real()) return real_text(as_real());
  if (is_text()) return quoted(as_text());
  std::string out;
  if (is_list()) {
    for (const TemplateValue& item : as_list()) out += (out.empty() ? "" : ", ") + item.repr();
    if (!is_tuple()) return "[" + out + "]";
    return "(" + out + (as_list().size() == 1 ? ",)" : ")");
  }
  if (is_dict()) {
    for (const auto& [key, item] : as_dict()) out += (out.empty() ? "" : ", ") + key.repr() + ": " + item.repr();
    return "{" + out + "}";
  }
  return fmt::format("<{}>", type_name());
}

}  // namespace penstock::text
