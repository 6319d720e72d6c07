#include "cluster/flight_watch.h"

#include <signal.h>

#include <algorithm>

#include "base/file.h"
#include "base/log.h"
#include "cluster/flight_analysis.h"

namespace penstock::cluster {
namespace {

constexpr milliseconds kPoll{100};
constexpr int64_t kOneAlarm = 2'000'000;     // microseconds: alarms that come together are one
constexpr int64_t kOneReport = 15'000'000;
constexpr seconds kSameAlarm{5};             // dumps so much older still belong to an alarm
constexpr milliseconds kLastOne{500};        // how long one missing dump is waited for: its rank may be dead

// Waits for SIGUSR1; also a clock.
bool signal_came(milliseconds wait) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  const timespec limit{0, std::chrono::duration_cast<std::chrono::nanoseconds>(wait).count()};
  return sigtimedwait(&signals, nullptr, &limit) == SIGUSR1;
}

}  // namespace

FlightWatch::FlightWatch(const FlightRecorder& recorder, FlightWatchOptions options)
    : recorder_(recorder), options_(std::move(options)), stuck_us_(std::chrono::duration_cast<microseconds>(options_.stuck_after).count()) {}

FlightWatch::~FlightWatch() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void FlightWatch::start(std::function<void(const std::string&)> raise) {
  raise_ = std::move(raise);
  thread_ = std::thread([this] { run(); });
}

void FlightWatch::run() {
  while (!stop_) {
    if (signal_came(kPoll)) raise_(fmt::format("rank {} was asked by SIGUSR1", options_.rank));
    look_at_step();
    if (report_wanted_.exchange(false)) collect_and_say(Deadline::after(options_.collect_within));
  }
}

void FlightWatch::look_at_step() {
  const int64_t start = recorder_.step_start_us();
  if (told_step_us_ != 0 && start != told_step_us_) {
    stuck_us_ *= 2;  // it was only slow
    told_step_us_ = 0;
  }
  if (start == 0 || start == told_step_us_ || now_us() - start < stuck_us_) return;
  told_step_us_ = start;
  if (last_alarm_us_ > start) return;  // another rank was first
  raise_(fmt::format("rank {}'s step takes longer than {:.3g} s", options_.rank, static_cast<double>(stuck_us_) * 1e-6));
}

void FlightWatch::alarm(const std::string& reason) {
  const int64_t now = now_us();
  if (now - last_alarm_us_.exchange(now) < kOneAlarm) return;
  dump(reason);
  if (options_.rank == 0) report_wanted_ = true;
}

void FlightWatch::last_words(const std::string& reason) {
  if (recorder_.step() > 0) dump(reason);
}

void FlightWatch::dump(const std::string& reason) {
  MutexLock lock(mutex_);
  std::error_code none;
  if (!std::filesystem::is_directory(options_.folder.parent_path(), none)) return;  // there is no run yet
  try {
    const FlightDump dump = take_dump(recorder_, options_.rank, options_.world_size, reason);
    std::filesystem::create_directory(options_.folder);
    write_file_atomic(dump_file(options_.folder, options_.rank), to_json(dump));
  } catch (const std::exception& e) {
    spdlog::error("the flight recorder cannot be written: {}", e.what());
  }
}

void FlightWatch::report(Deadline deadline) {
  if (now_us() - last_report_us_ > kOneReport) collect_and_say(deadline);
}

// How many dumps are of this alarm, by the file system's own clock.
int FlightWatch::num_fresh() const {
  std::error_code failed;
  const auto own = std::filesystem::last_write_time(dump_file(options_.folder, options_.rank), failed);
  if (failed) return 0;
  int fresh = 0;
  for (int rank = 0; rank < options_.world_size; ++rank) {
    const auto written = std::filesystem::last_write_time(dump_file(options_.folder, rank), failed);
    fresh += !failed && written >= own - kSameAlarm ? 1 : 0;
  }
  return fresh;
}

void FlightWatch::collect_and_say(Deadline deadline) {
  const Deadline last_one = Deadline::after(kLastOne);
  while (!deadline.passed() && !stop_) {
    const int missing = options_.world_size - num_fresh();
    if (missing == 0 || (missing == 1 && last_one.passed())) break;
    std::this_thread::sleep_for(std::min<milliseconds>(kPoll, deadline.remaining()));
  }
  std::vector<FlightDump> dumps = read_dumps(options_.folder);
  const auto own = std::ranges::find(dumps, options_.rank, &FlightDump::rank);
  if (own == dumps.end()) return;
  const int64_t oldest = own->unix_us - std::chrono::duration_cast<microseconds>(kSameAlarm).count();
  const std::string reason = own->reason;
  std::erase_if(dumps, [&](const FlightDump& d) { return d.unix_us < oldest; });
  last_report_us_ = now_us();
  spdlog::warn("{}; the last {} entries of each rank are in {} (penstock flight)\n{}", reason, FlightRecorder::kEntries, options_.folder.string(),
               to_text(analyse_flight(dumps)));
}

}  // namespace penstock::cluster
