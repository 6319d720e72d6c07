#include "text/tool_call_reader.h"

#include <algorithm>
#include <utility>

#include "base/uuid.h"

namespace penstock::text {
namespace {

constexpr size_t kMaxHeldBytes = 64 << 10;
constexpr std::string_view kHermesEnd = "</tool_call>";

// None of their bytes but the first is like the first, so where one does not fit, it can only begin anew there.
std::string_view mark_of(ToolFormat format) {
  switch (format) {
    case ToolFormat::kHermes: return "<tool_call>";
    case ToolFormat::kMistral: return "[TOOL_CALLS]";
    case ToolFormat::kLlama3Json: return "<|python_tag|>";  // need not be there
    default: return "";
  }
}

std::string call_id(bool is_short) {
  std::string id = make_uuid();
  std::erase(id, '-');
  return is_short ? id.substr(0, 9) : "call_" + id.substr(0, 24);
}

}  // namespace

ToolCallReader::ToolCallReader(ToolReading reading) : reading_(std::move(reading)), mark_(mark_of(reading_.format)) {
  switch (reading_.format) {
    case ToolFormat::kHermes:
    case ToolFormat::kMistral: place_ = Place::kText; break;
    case ToolFormat::kLlama3Json: place_ = Place::kStart; break;
    case ToolFormat::kCallList: place_ = Place::kListStart; break;
    default: place_ = Place::kRest; break;
  }
}

ToolText ToolCallReader::feed(std::string_view text) {
  if (reading_.format == ToolFormat::kArguments) {
    if (!text.empty()) tell_arguments(std::string(text));
    return std::exchange(out_, {});
  }
  for (const char c : text) take(c);
  if (place_ == Place::kObject && object_.begun()) tell_call();
  return std::exchange(out_, {});
}

ToolText ToolCallReader::end() {
  if (reading_.format == ToolFormat::kArguments && !told_) tell_arguments("");
  if (place_ == Place::kObject && object_.begun()) tell_call();
  if (!held_.empty()) say(std::exchange(held_, {}));
  else if (place_ == Place::kText || place_ == Place::kStart) say(mark_.substr(0, matched_));
  matched_ = 0;
  if (!called()) out_.content += std::exchange(spaces_, {});
  return std::exchange(out_, {});
}

void ToolCallReader::take(char c) {
  switch (place_) {
    case Place::kText: return take_text(c);
    case Place::kStart: return take_start(c);
    case Place::kListStart: return take_list_start(c);
    case Place::kNextObject: return take_before_object(c);
    case Place::kObject: return take_object(c);
    case Place::kBetween: return take_between(c);
    case Place::kRest: return say({&c, 1});
  }
}

void ToolCallReader::take_text(char c) {
  if (c != mark_[matched_]) {
    say(mark_.substr(0, std::exchange(matched_, 0)));
    if (c != mark_.front()) return say({&c, 1});
  }
  if (++matched_ < mark_.size()) return;
  matched_ = 0;
  held_ = mark_;
  place_ = reading_.format == ToolFormat::kMistral ? Place::kListStart : Place::kNextObject;
}

void ToolCallReader::take_start(char c) {
  if (c == mark_[matched_]) {
    matched_ = (matched_ + 1) % mark_.size();
    return;
  }
  if (matched_ == 0 && c == '{') return begin_object(c);
  say(mark_.substr(0, std::exchange(matched_, 0)));
  if (!is_space(c)) place_ = Place::kRest;
  say({&c, 1});
}

void ToolCallReader::take_list_start(char c) {
  if ((c != '[' && !is_space(c)) || held_.size() >= kMaxHeldBytes) return reject(c);
  held_ += c;
  if (c == '[') place_ = Place::kNextObject;
}

void ToolCallReader::take_before_object(char c) {
  if (c == '{') return begin_object(c);
  if (!is_space(c) || held_.size() >= kMaxHeldBytes) return reject(c);
  if (!held_.empty()) held_ += c;  // otherwise it separates calls
}

void ToolCallReader::begin_object(char c) {
  object_ = {};
  told_ = false;
  place_ = Place::kObject;
  take_object(c);
}

void ToolCallReader::take_object(char c) {
  const auto step = object_.feed(c);
  if (object_.begun()) {
    held_.clear();
    spaces_.clear();
  } else {
    held_ += c;
  }
  if (step == ToolCallObject::Step::kGoesOn && held_.size() <= kMaxHeldBytes) return;
  if (!object_.begun()) {
    held_.pop_back();
    return reject(c);
  }
  tell_call();
  place_ = Place::kBetween;
  matched_ = 0;
  if (step == ToolCallObject::Step::kBroken) take_between(c);
}

// Behind a call: the mark of its end, what separates it from the next one, or other text.
void ToolCallReader::take_between(char c) {
  const bool is_list = reading_.format == ToolFormat::kMistral || reading_.format == ToolFormat::kCallList;
  if (is_space(c) && matched_ == 0) return;
  if (reading_.format == ToolFormat::kHermes && c == kHermesEnd[matched_]) {
    if (++matched_ < kHermesEnd.size()) return;
    matched_ = 0;
    place_ = Place::kText;
    return;
  }
  if (is_list && c == ']') {
    place_ = reading_.format == ToolFormat::kMistral ? Place::kText : Place::kRest;
    return;
  }
  if (c == ',' && is_list) return void(place_ = Place::kNextObject);
  if ((c == ';' || c == ',') && reading_.format == ToolFormat::kLlama3Json) return void(place_ = Place::kNextObject);
  const auto matched = std::exchange(matched_, 0);
  place_ = reading_.format == ToolFormat::kHermes || reading_.format == ToolFormat::kMistral ? Place::kText : Place::kRest;
  for (const char earlier : kHermesEnd.substr(0, matched)) take(earlier);
  take(c);
}

// What was held is no call. `c`: the byte that shows it.
void ToolCallReader::reject(char c) {
  place_ = reading_.format == ToolFormat::kHermes || reading_.format == ToolFormat::kMistral ? Place::kText : Place::kRest;
  matched_ = 0;
  say(std::exchange(held_, {}));
  take(c);
}

void ToolCallReader::say(std::string_view text) {
  for (const char c : text) {
    if (is_space(c)) {
      spaces_ += c;
      continue;
    }
    out_.content += std::exchange(spaces_, {});
    out_.content += c;
  }
}

// The name of the object's call, if it is new, and what has come of its arguments.
void ToolCallReader::tell_call() { tell_arguments(object_.take_arguments()); }

void ToolCallReader::tell_arguments(std::string arguments) {
  const bool is_first = !std::exchange(told_, true);
  if (is_first) ++num_calls_;
  const int index = num_calls_ - 1;
  if (index >= std::min(reading_.max_calls, kMaxToolCalls) || (!is_first && arguments.empty())) return;
  if (out_.calls.empty() || out_.calls.back().index != index) out_.calls.push_back({.index = index});
  ToolCallPiece& piece = out_.calls.back();
  if (is_first) {
    piece.id = call_id(reading_.short_ids);
    piece.name = reading_.format == ToolFormat::kArguments ? reading_.function : object_.name();
  }
  piece.arguments += arguments;
}

}  // namespace penstock::text
