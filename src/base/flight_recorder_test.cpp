#include "base/flight_recorder.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <thread>

namespace penstock {
namespace {

TEST(FlightRecorder, KeepsTheLastEntriesInOrder) {
  FlightRecorder recorder;
  for (int i = 0; i < 5000; ++i) recorder.end(recorder.begin({.kind = FlightEntry::Kind::kAction, .name = "forward", .microbatch = i}));
  const auto entries = recorder.snapshot().entries;
  ASSERT_EQ(entries.size(), FlightRecorder::kEntries);
  for (size_t i = 0; i < entries.size(); ++i) {
    EXPECT_EQ(entries[i].microbatch, static_cast<int>(5000 - FlightRecorder::kEntries + i));
    EXPECT_EQ(entries[i].name.view(), "forward");
    EXPECT_GE(entries[i].finished_us, entries[i].posted_us);
  }
}

TEST(FlightRecorder, TellsPostedWaitedAndFinishedApart) {
  FlightRecorder recorder;
  const int group = recorder.add_group("data[0]", {0, 2});
  recorder.begin_step(41);
  const uint64_t posted = recorder.begin({.kind = FlightEntry::Kind::kCollective, .name = "all_reduce(sum)", .group = group, .sequence = 1, .bytes = 64});
  const uint64_t waited = recorder.begin({.kind = FlightEntry::Kind::kMessage, .name = "recv", .group = group, .peer = 1, .tag = 7});
  recorder.wait_begins(waited);
  const auto before = recorder.snapshot();
  EXPECT_EQ(before.step, 41);
  EXPECT_GT(before.step_start_us, 0);
  EXPECT_EQ(before.groups.at(0).ranks, (std::vector<int>{0, 2}));
  EXPECT_EQ(before.entries.at(0).waited_us, 0);
  EXPECT_EQ(before.entries.at(0).step, 41);
  EXPECT_GT(before.entries.at(1).waited_us, 0);
  EXPECT_EQ(before.entries.at(1).finished_us, 0);
  recorder.end(posted);
  recorder.end_step();
  EXPECT_GT(recorder.snapshot().entries.at(0).finished_us, 0);
  EXPECT_EQ(recorder.snapshot().step_start_us, 0);
}

TEST(FlightRecorder, AnEntryThatAnExceptionLeavesStaysOpen) {
  FlightRecorder recorder;
  { const FlightScope well(&recorder, {.name = "optimizer"}); }
  try {
    const FlightScope broken(&recorder, {.name = "validation"});
    throw std::runtime_error("a peer is gone");
  } catch (const std::runtime_error&) {
  }
  const auto entries = recorder.snapshot().entries;
  EXPECT_GT(entries.at(0).finished_us, 0);
  EXPECT_EQ(entries.at(1).finished_us, 0);
  { const FlightScope nothing(nullptr, {.name = "optimizer"}); }
}

TEST(FlightRecorder, ManyWritersAndAReaderNeverMakeATornEntry) {
  FlightRecorder recorder;
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 3; ++writer) {
    writers.emplace_back([&, writer] {
      for (int i = 0; !stop; ++i) recorder.end(recorder.begin({.name = "phase", .stage = writer, .microbatch = i, .bytes = int64_t{writer} * 1000000 + i}));
    });
  }
  size_t seen = 0;
  for (int reading = 0; reading < 200 || seen == 0; ++reading) {
    for (const FlightEntry& entry : recorder.snapshot().entries) {
      ASSERT_EQ(entry.bytes, int64_t{entry.stage} * 1000000 + entry.microbatch);
      ++seen;
    }
  }
  stop = true;
  for (auto& writer : writers) writer.join();
}

TEST(FlightRecorder, ALongNameIsCut) { EXPECT_EQ(FlightName("a name of far more than 23 bytes").view(), "a name of far more than"); }

}  // namespace
}  // namespace penstock
