#include "base/chrome_trace.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

namespace penstock {

namespace {

constexpr double kLongest = 1e17;  // microseconds: 3,000 years

int64_t microseconds_of(const nlohmann::ordered_json& json) {
  const auto value = json.get<double>();
  if (!(value >= -kLongest && value <= kLongest)) throw error(Code::kDataLoss, "a time of {} microseconds; expected at most {}", value, kLongest);
  return static_cast<int64_t>(value);
}

using Json = nlohmann::ordered_json;

std::string line_of(const Json& event) { return event.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string metadata(const char* kind, int process, int thread, const char* key, const Json& value) {
  return line_of({{"name", kind}, {"ph", "M"}, {"pid", process}, {"tid", thread}, {"args", {{key, value}}}});
}

std::string complete_event(const TraceEvent& event) {
  Json json = {{"name", event.name},   {"cat", event.category}, {"ph", "X"},
               {"ts", event.start_us}, {"dur", event.duration_us}, {"pid", event.process},
               {"tid", event.thread}};
  for (const auto& [key, argument] : event.arguments) {
    std::visit([&json, &key = key](const auto& value) { json["args"][key] = value; }, argument);
  }
  return line_of(json);
}

TraceEvent::Argument argument_of(const Json& value) {
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  return value.get<std::string>();
}

TraceEvent event_of(const Json& json) {
  TraceEvent event;
  event.name = json.at("name").get<std::string>();
  event.category = json.at("cat").get<std::string>();
  event.process = json.at("pid").get<int>();
  event.thread = json.at("tid").get<int>();
  event.start_us = microseconds_of(json.at("ts"));
  event.duration_us = microseconds_of(json.at("dur"));
  if (json.contains("args")) {
    for (const auto& [key, value] : json.at("args").items()) event.arguments.emplace_back(key, argument_of(value));
  }
  return event;
}

}  // namespace

void ChromeTrace::append(ChromeTrace other) {
  for (auto& [process, name] : other.process_names_) process_names_[process] = std::move(name);
  for (auto& [row, name] : other.thread_names_) thread_names_[row] = std::move(name);
  std::move(other.events_.begin(), other.events_.end(), std::back_inserter(events_));
}

void ChromeTrace::start_at_zero() {
  if (events_.empty()) return;
  const auto earlier = [](const TraceEvent& a, const TraceEvent& b) { return a.start_us < b.start_us; };
  const int64_t first = std::min_element(events_.begin(), events_.end(), earlier)->start_us;
  for (TraceEvent& event : events_) event.start_us -= first;
}

std::string ChromeTrace::to_json() const {
  std::vector<std::string> lines;
  for (const auto& [process, name] : process_names_) {
    lines.push_back(metadata("process_name", process, 0, "name", name));
    lines.push_back(metadata("process_sort_index", process, 0, "sort_index", process));
  }
  for (const auto& [row, name] : thread_names_) {
    lines.push_back(metadata("thread_name", row.first, row.second, "name", name));
    lines.push_back(metadata("thread_sort_index", row.first, row.second, "sort_index", row.second));
  }
  for (const TraceEvent& event : events_) lines.push_back(complete_event(event));
  return fmt::format("{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{}\n]}}\n", fmt::join(lines, ",\n"));
}

Result<ChromeTrace> ChromeTrace::parse(std::string_view json) {
  try {
    ChromeTrace trace;
    const Json file = Json::parse(json);
    for (const Json& event : file.at("traceEvents")) {
      const auto kind = event.at("ph").get<std::string>();
      if (kind == "X") {
        trace.add(event_of(event));
      } else if (kind == "M" && event.at("name") == "process_name") {
        trace.name_process(event.at("pid").get<int>(), event.at("args").at("name").get<std::string>());
      } else if (kind == "M" && event.at("name") == "thread_name") {
        trace.name_thread(event.at("pid").get<int>(), event.at("tid").get<int>(), event.at("args").at("name").get<std::string>());
      }
    }
    return trace;
  } catch (const Json::exception& e) {
    return error(Code::kDataLoss, "not a timeline that Penstock wrote: {}", e.what());
  }
}

}  // namespace penstock
