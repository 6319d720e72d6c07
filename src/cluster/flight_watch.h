#pragma once
// Writes a rank's flight recorder down when the job gets stuck, and says on rank 0 who did not arrive.
#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "base/clock.h"
#include "base/flight_recorder.h"
#include "base/mutex.h"

namespace penstock::cluster {

struct FlightWatchOptions {
  std::filesystem::path folder;  // of all ranks' dumps; made when it is needed
  int rank = 0;
  int world_size = 1;
  milliseconds stuck_after = seconds(30);  // a step that takes longer is stuck; one that ends after all doubles it
  milliseconds collect_within = seconds(3);  // rank 0 waits so long for the others' dumps
};

// Threads:  methods from any thread. start() starts one of its own, which looks at the step's age and takes SIGUSR1, which all other threads must
//           block; the main thread may be stuck.
// Blocking: alarm() writes a file; report() waits up to its deadline for other ranks' files.
// Errors:   none is thrown: what cannot be written is logged.
class FlightWatch {
 public:
  FlightWatch(const FlightRecorder& recorder, FlightWatchOptions options);
  ~FlightWatch();
  FlightWatch(const FlightWatch&) = delete;
  FlightWatch& operator=(const FlightWatch&) = delete;

  // `raise` tells all ranks, this one too: each is to call alarm().
  void start(std::function<void(const std::string& reason)> raise);

  // Something is wrong, on this rank or another: writes RUN/flight/rank-N.json; on rank 0 the watching thread then reports. Alarms within two
  // seconds of the last are one.
  void alarm(const std::string& reason);
  // For a rank that is about to end its process: writes, unless no step has begun.
  void last_words(const std::string& reason);
  // On one rank of a job that ends: logs who did not arrive unless that was said here in the last 15 seconds.
  void report(Deadline deadline);

 private:
  void run();
  void look_at_step();
  void dump(const std::string& reason) EXCLUDES(mutex_);
  [[nodiscard]] int num_fresh() const;
  void collect_and_say(Deadline deadline);

  const FlightRecorder& recorder_;
  const FlightWatchOptions options_;
  std::function<void(const std::string&)> raise_;
  int64_t stuck_us_;                      // of the watching thread
  int64_t told_step_us_ = 0;              // start of the step that it last raised an alarm for
  std::atomic<int64_t> last_alarm_us_{0}, last_report_us_{0};
  std::atomic<bool> report_wanted_{false}, stop_{false};
  Mutex mutex_;                           // one dump at a time
  std::thread thread_;
};

}  // namespace penstock::cluster
