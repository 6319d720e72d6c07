#include "cluster/flight_watch.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include "base/temp_dir.h"
#include "base/clock.h"
#include "cluster/flight_dump.h"

namespace penstock::cluster {
namespace {

struct Watched {
  explicit Watched(milliseconds stuck_after) : watch(recorder, {folder.path() / "flight", 0, 2, stuck_after, milliseconds(200)}) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    watch.start([this](const std::string& reason) {
      ++alarms;
      watch.alarm(reason);
    });
  }
  std::optional<FlightDump> wait_for_dump(Deadline deadline) const {
    while (!deadline.passed()) {
      const auto dumps = read_dumps(folder.path() / "flight");
      if (!dumps.empty()) return dumps[0];
      std::this_thread::sleep_for(milliseconds(10));
    }
    return std::nullopt;
  }
  const TempDir folder;
  FlightRecorder recorder;
  std::atomic<int> alarms{0};
  FlightWatch watch;
};

TEST(FlightWatch, AStepThatTakesTooLongIsWrittenDownOnce) {
  Watched w(milliseconds(50));
  w.recorder.begin_step(3);
  const uint64_t stuck = w.recorder.begin({.kind = FlightEntry::Kind::kAction, .name = "forward", .stage = 0, .microbatch = 1});
  const auto dump = w.wait_for_dump(Deadline::after(seconds(60)));
  ASSERT_TRUE(dump);
  EXPECT_NE(dump->reason.find("step takes longer than 0.05 s"), std::string::npos) << dump->reason;
  EXPECT_EQ(dump->recorded.step, 3);
  EXPECT_EQ(dump->recorded.entries.at(0).finished_us, 0);
  std::this_thread::sleep_for(milliseconds(400));
  EXPECT_EQ(w.alarms, 1);
  w.recorder.end(stuck);
}

TEST(FlightWatch, TheSignalWritesItDownAlsoBetweenSteps) {
  Watched w(std::chrono::hours(1));
  ::kill(::getpid(), SIGUSR1);
  const auto dump = w.wait_for_dump(Deadline::after(seconds(60)));
  ASSERT_TRUE(dump);
  EXPECT_EQ(dump->reason, "rank 0 was asked by SIGUSR1");
}

TEST(FlightWatch, AFolderThatCannotBeWrittenHarmsNothing) {
  FlightRecorder recorder;
  FlightWatch watch(recorder, {"/proc/nowhere", 0, 1, seconds(1), milliseconds(10)});
  watch.alarm("a test");
  watch.report(Deadline::after(milliseconds(10)));
}

}  // namespace
}  // namespace penstock::cluster
