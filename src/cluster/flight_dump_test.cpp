#include "cluster/flight_dump.h"

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::cluster {
namespace {

FlightDump sample() {
  FlightRecorder recorder;
  const int group = recorder.add_group("data[0]", {0, 2});
  recorder.begin_step(7);
  recorder.end(recorder.begin({.kind = FlightEntry::Kind::kAction, .name = "forward", .stage = 1, .microbatch = 3}));
  recorder.wait_begins(recorder.begin({.kind = FlightEntry::Kind::kCollective, .name = "all_reduce(sum)", .group = group, .bucket = 2, .sequence = 5, .bytes = 64}));
  return take_dump(recorder, 2, 4, "by hand");
}

TEST(FlightDump, IsReadAsItWasWritten) {
  const FlightDump written = sample();
  const FlightDump read = parse_flight_dump(to_json(written), "rank-2.json").value();
  EXPECT_EQ(read.rank, 2);
  EXPECT_EQ(read.world_size, 4);
  EXPECT_EQ(read.reason, "by hand");
  EXPECT_EQ(read.process, written.process);
  EXPECT_EQ(read.recorded.step, 7);
  ASSERT_EQ(read.recorded.entries.size(), 2u);
  const FlightEntry& reduce = read.recorded.entries[1];
  EXPECT_EQ(reduce.name.view(), "all_reduce(sum)");
  EXPECT_EQ(reduce.kind, FlightEntry::Kind::kCollective);
  EXPECT_EQ(read.recorded.groups[static_cast<size_t>(reduce.group)].ranks, (std::vector<int>{0, 2}));
  EXPECT_EQ(reduce.bucket, 2);
  EXPECT_EQ(reduce.sequence, 5);
  EXPECT_EQ(reduce.peer, -1);
  EXPECT_EQ(reduce.waited_us, written.recorded.entries[1].waited_us);
  EXPECT_EQ(reduce.finished_us, 0);
  EXPECT_LT(read.seconds_since(reduce.waited_us), 100) << "times are since 1970";
}

TEST(FlightDump, HostileFilesAreRefusedWithTheirName) {
  const std::string good = to_json(sample());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string bad = good;
    const size_t at = bad.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return bad.replace(at, from.size(), to);
  };
  for (const std::string& bad : {std::string(), std::string("[]"), good.substr(0, good.size() / 2), with("\"rank\":2", "\"rank\":4"), with("\"rank\":2", "\"rank\":-1"),
                                 with("\"world_size\":4", "\"world_size\":100000000"), with("\"group\":0", "\"group\":7"), with("[0,2]", "[0,9]"), with("[0,2]", "[]"),
                                 with("\"stage\":1", "\"stage\":99999999999"), with("\"action\"", "\"dance\"")}) {
    const auto parsed = parse_flight_dump(bad, "rank-2.json");
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(parsed.error().code(), Code::kDataLoss);
    EXPECT_TRUE(parsed.error().message().starts_with("rank-2.json: ")) << parsed.error().message();
  }
}

TEST(FlightDump, AFolderIsReadByRankAndWhatIsBrokenIsToldApart) {
  const TempDir folder;
  write_file_atomic(dump_file(folder.path(), 2), to_json(sample()));
  write_file_atomic(dump_file(folder.path(), 1), to_json(sample()));
  write_file_atomic(dump_file(folder.path(), 0), "{");
  write_file_atomic(folder.path() / "notes.txt", "");
  std::vector<std::string> problems;
  const auto dumps = read_dumps(folder.path(), &problems);
  ASSERT_EQ(dumps.size(), 1u);
  EXPECT_EQ(dumps[0].rank, 2);
  EXPECT_EQ(problems.size(), 2u) << "rank-1.json says that it is of rank 2, rank-0.json is cut off";
  EXPECT_TRUE(read_dumps(folder.path() / "nowhere").empty());
}

TEST(FlightDump, BecomesATraceWithARowForEachKind) {
  const ChromeTrace trace = ChromeTrace::parse(to_trace({sample()}).to_json()).value();
  ASSERT_EQ(trace.events().size(), 2u);
  EXPECT_EQ(trace.events()[0].name, "forward");
  EXPECT_EQ(trace.events()[0].category, "done");
  EXPECT_NE(trace.events()[0].thread, trace.events()[1].thread);
  EXPECT_EQ(trace.events()[1].category, "not finished");
}

}  // namespace
}  // namespace penstock::cluster
