#include "text/tool_call_object.h"

#include <nlohmann/json.hpp>

#include <string_view>
#include <utility>

namespace penstock::text {
namespace {

constexpr size_t kMaxNameBytes = 1 << 10;  // of a key or a name, as written
constexpr size_t kMaxScalarBytes = 64;

}  // namespace

std::string ToolCallObject::take_arguments() { return std::exchange(arguments_, {}); }

ToolCallObject::Step ToolCallObject::go(Place place) {
  place_ = place;
  return Step::kGoesOn;
}

ToolCallObject::Step ToolCallObject::feed(char c) {
  switch (place_) {
    case Place::kInKey:
    case Place::kInText: return feed_text(c);
    case Place::kInNested: return feed_nested(c);
    case Place::kInScalar: return feed_scalar(c);
    default: break;
  }
  if (is_space(c) && place_ != Place::kStart) return Step::kGoesOn;
  switch (place_) {
    case Place::kStart: return c == '{' ? go(Place::kFirstKey) : Step::kBroken;
    case Place::kFirstKey:
    case Place::kKey:
      if (c != '"') return Step::kBroken;
      token_ = c;
      return go(Place::kInKey);
    case Place::kColon: return c == ':' ? go(Place::kValue) : Step::kBroken;
    case Place::kValue: return feed_value(c);
    default: return feed_after_value(c);
  }
}

ToolCallObject::Step ToolCallObject::feed_value(char c) {
  token_ = c;
  if (c == '"') return go(Place::kInText);
  const bool wanted = member_ == Member::kArguments && !has_arguments_;
  if (c == '{' || c == '[') {
    if (member_ == Member::kName || (wanted && c == '[')) return Step::kBroken;
    collects_ = wanted;
    if (collects_) arguments_ = c;
    has_arguments_ = has_arguments_ || collects_;
    depth_ = 1;
    return go(Place::kInNested);
  }
  if (member_ == Member::kName || c == ',' || c == '}' || c == ']' || c == ':') return Step::kBroken;
  return go(Place::kInScalar);
}

// Whether a text that has begun ends with this byte.
bool ToolCallObject::ends_text(char c) {
  if (!escaped_ && c == '"') return true;
  escaped_ = !escaped_ && c == '\\';
  return false;
}

ToolCallObject::Step ToolCallObject::feed_text(char c) {
  const bool is_key = place_ == Place::kInKey;
  const bool is_short = is_key || member_ == Member::kName;
  const bool counts = is_short || (member_ == Member::kArguments && !has_arguments_);
  if (counts) token_ += c;
  if (!ends_text(c)) return is_short && token_.size() > kMaxNameBytes ? Step::kBroken : Step::kGoesOn;
  if (counts && !take_text()) return Step::kBroken;
  return go(is_key ? Place::kColon : Place::kAfterValue);
}

// The key, name or arguments that token_ spells. false: it is none.
bool ToolCallObject::take_text() {
  const nlohmann::json json = nlohmann::json::parse(token_, nullptr, /*allow_exceptions=*/false);
  if (!json.is_string()) return false;
  const auto& text = json.get_ref<const std::string&>();
  if (place_ == Place::kInKey) {
    member_ = text == "name" ? Member::kName : text == "arguments" || text == "parameters" ? Member::kArguments : Member::kOther;
    return true;
  }
  if (member_ == Member::kName) {
    if (name_.empty()) name_ = text;
    return !text.empty();
  }
  arguments_ = text;
  has_arguments_ = true;
  return true;
}

ToolCallObject::Step ToolCallObject::feed_nested(char c) {
  if (collects_) arguments_ += c;
  if (in_text_) {
    in_text_ = !ends_text(c);
    return Step::kGoesOn;
  }
  if (c == '"') in_text_ = true;
  else if (c == '{' || c == '[') ++depth_;
  else if ((c == '}' || c == ']') && --depth_ == 0) return go(Place::kAfterValue);
  return Step::kGoesOn;
}

ToolCallObject::Step ToolCallObject::feed_scalar(char c) {
  if (!is_space(c) && c != ',' && c != '}') {
    token_ += c;
    return token_.size() > kMaxScalarBytes ? Step::kBroken : Step::kGoesOn;
  }
  if (member_ == Member::kArguments && !has_arguments_) {
    if (token_ != "null") return Step::kBroken;
    arguments_ = "{}";
    has_arguments_ = true;
  }
  return feed_after_value(c);
}

ToolCallObject::Step ToolCallObject::feed_after_value(char c) {
  if (c == ',') return go(Place::kKey);
  if (c == '}') return begun() ? Step::kEnded : Step::kBroken;
  return is_space(c) ? go(Place::kAfterValue) : Step::kBroken;
}

}  // namespace penstock::text
