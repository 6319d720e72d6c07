#pragma once
// A timeline in Chrome's trace event format: opens in ui.perfetto.dev and chrome://tracing.
// Format: "Trace Event Format", the JSON object form with complete events ("X") and metadata events ("M").
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace penstock {

// One bar on the timeline.
struct TraceEvent {
  using Argument = std::variant<int64_t, double, std::string>;

  std::string name;      // e.g. "0F3"
  std::string category;  // e.g. "forward"; the viewer filters by it
  int process = 0;       // a rank
  int thread = 0;        // a row of the process
  int64_t start_us = 0;  // now_us()
  int64_t duration_us = 0;
  std::vector<std::pair<std::string, Argument>> arguments;

  bool operator==(const TraceEvent&) const = default;
};

// What one process or many did. Each rank fills its own; one of them appends the others' and writes the file.
// Threads: one thread at a time.
class ChromeTrace {
 public:
  // Processes and threads are shown under their names, in the order of their numbers.
  void name_process(int process, std::string name) { process_names_[process] = std::move(name); }
  void name_thread(int process, int thread, std::string name) { thread_names_[{process, thread}] = std::move(name); }
  void add(TraceEvent event) { events_.push_back(std::move(event)); }

  // Takes over the other's events and names; on a name that both have the other's wins.
  void append(ChromeTrace other);

  // Moves all events so that the first starts at 0. Call it after the last append(): ranks share the clock before it.
  void start_at_zero();

  [[nodiscard]] const std::vector<TraceEvent>& events() const { return events_; }

  // The file's content: one event a line. Bytes that are not UTF-8 become U+FFFD.
  [[nodiscard]] std::string to_json() const;

  // What to_json() wrote. kDataLoss says what is wrong.
  [[nodiscard]] static Result<ChromeTrace> parse(std::string_view json);

 private:
  std::map<int, std::string> process_names_;
  std::map<std::pair<int, int>, std::string> thread_names_;
  std::vector<TraceEvent> events_;
};

}  // namespace penstock
