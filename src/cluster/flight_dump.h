#pragma once
// What a rank's flight recorder held, as a file: RUN/flight/rank-N.json.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/chrome_trace.h"
#include "base/error.h"
#include "base/flight_recorder.h"

namespace penstock::cluster {

struct FlightDump {
  int rank = 0;
  int world_size = 1;
  std::string process;        // "pid 4711 on node1"
  std::string reason;         // why it was written
  int64_t unix_us = 0;        // when
  FlightRecorder::Snapshot recorded;  // its times in microseconds since 1970, so that ranks of several machines can be compared

  // Seconds from `time_us` to the dump.
  [[nodiscard]] double seconds_since(int64_t time_us) const { return static_cast<double>(unix_us - time_us) * 1e-6; }
};

// Of this process, now.
[[nodiscard]] FlightDump take_dump(const FlightRecorder& recorder, int rank, int world_size, std::string reason);

[[nodiscard]] std::string to_json(const FlightDump& dump);
// Error kDataLoss says what is wrong; `name` is the file's, for the message.
[[nodiscard]] Result<FlightDump> parse_flight_dump(std::string_view json, const std::string& name);

[[nodiscard]] std::filesystem::path flight_folder(const std::filesystem::path& run);
[[nodiscard]] std::filesystem::path dump_file(const std::filesystem::path& folder, int rank);

// All dumps of a folder by rank. One that cannot be read is left out, and `problems`, unless null, says why.
[[nodiscard]] std::vector<FlightDump> read_dumps(const std::filesystem::path& folder, std::vector<std::string>* problems = nullptr);

// Everything that was recorded, a process for each rank and a row for each kind.
[[nodiscard]] ChromeTrace to_trace(const std::vector<FlightDump>& dumps);

}  // namespace penstock::cluster
