// Values of chat templates as JSON: the filter tojson.
#include <algorithm>
#include <cmath>

#include "text/characters.h"
#include "text/template_builtins.h"

namespace penstock::text {
namespace {

class JsonWriter {
 public:
  JsonWriter(const TemplateJsonForm& form, TemplateBudget& budget) : form_(form), budget_(budget) {}

  void write(const TemplateValue& value, int level) {
    budget_.spend_bytes(value.is_text() ? value.bytes() : 0);
    if (value.is_none()) out += "null";
    else if (value.is_boolean()) out += value.truth() ? "true" : "false";
    else if (value.is_integer()) out += std::to_string(value.as_integer());
    else if (value.is_real()) out += real(value.as_real());
    else if (value.is_text()) write_text(value.as_text());
    else if (value.is_list()) write_list(value.as_list(), level);
    else if (value.is_dict()) write_dict(value.as_dict(), level);
    else throw error(Code::kInvalidArgument, "tojson: {}", value.is_undefined() ? value.why_undefined() : std::string(value.type_name()) + " is no JSON");
  }

  std::string out;

 private:
  static std::string real(double value) {
    if (std::isnan(value)) return "NaN";
    return std::isinf(value) ? (value < 0 ? "-Infinity" : "Infinity") : TemplateValue::real(value).repr();
  }

  // Keys of JSON are texts: a number or none becomes what it is written as.
  std::string name_of(const TemplateValue& key) const { return key.is_text() ? key.as_text() : to_json(key, form_, budget_); }

  void write_text(const std::string& text) {
    out += '"';
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      const char32_t c = next_character(text, at);
      const auto code = static_cast<uint32_t>(c);
      const std::string_view escapes = "\"\"\\\\\nn\rr\tt\bb\ff";
      const size_t escape = code < 0x80 ? escapes.find(static_cast<char>(c)) : std::string_view::npos;
      if (escape != std::string_view::npos && escape % 2 == 0) out += fmt::format("\\{}", escapes[escape + 1]);
      else if (code >= 0x10000 && form_.ascii) out += fmt::format("\\u{:04x}\\u{:04x}", 0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF));
      else if (code < 0x20 || (code >= 0x7F && form_.ascii)) out += fmt::format("\\u{:04x}", code);
      else out += text.substr(begin, at - begin);
    }
    out += '"';
  }

  void line(int level) {
    if (form_.indent < 0) return;
    const size_t spaces = static_cast<size_t>(form_.indent) * static_cast<size_t>(level);
    budget_.spend_bytes(spaces);
    out += '\n';
    out.append(spaces, ' ');
  }

  void separate(const std::string& separator) {
    budget_.spend_bytes(separator.size());
    out += separator;
  }

  void write_list(const std::vector<TemplateValue>& items, int level) {
    out += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) separate(form_.between_items);
      line(level + 1);
      write(items[i], level + 1);
    }
    if (!items.empty()) line(level);
    out += ']';
  }

  void write_dict(const TemplateValue::Dict& items, int level) {
    std::vector<const std::pair<TemplateValue, TemplateValue>*> order;
    for (const auto& item : items) order.push_back(&item);
    if (form_.sort_keys) std::stable_sort(order.begin(), order.end(), [this](const auto* a, const auto* b) { return compare(a->first, b->first, budget_) < 0; });
    out += '{';
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) separate(form_.between_items);
      line(level + 1);
      budget_.spend_bytes(order[i]->first.bytes());
      write_text(name_of(order[i]->first));
      separate(form_.behind_key);
      write(order[i]->second, level + 1);
    }
    if (!items.empty()) line(level);
    out += '}';
  }

  const TemplateJsonForm& form_;
  TemplateBudget& budget_;
};

}  // namespace

std::string to_json(const TemplateValue& value, const TemplateJsonForm& form, TemplateBudget& budget) {
  JsonWriter writer(form, budget);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace penstock::text
