#include "train/step_metrics.h"

#include <gtest/gtest.h>

#include <optional>

#include "comm/spawn_ranks.h"

namespace penstock::train {
namespace {

std::optional<double> scalar(const StepReport& report, std::string_view name) {
  for (const auto& [known, value] : report.scalars()) {
    if (known == name) return value;
  }
  return std::nullopt;
}

TEST(StepSums, EveryRankLearnsWhatEachComputedAndHeld) {
  comm::spawn_ranks(3, [](comm::Communicator& world) {
    StepSums sums;
    sums.busy_seconds = 1 + world.rank();
    sums.add_own(world.rank(), world.size());
    sums.all_reduce(world, Deadline::after(seconds(60)));
    EXPECT_DOUBLE_EQ(sums.busy_seconds, 6);
    EXPECT_EQ(sums.compute_seconds, (std::vector<double>{1, 2, 3}));
    ASSERT_EQ(sums.peak_bytes.size(), 3u);
    for (const double bytes : sums.peak_bytes) EXPECT_GT(bytes, 1 << 20);

    StepSums without;  // validation
    without.all_reduce(world, Deadline::after(seconds(60)));
    EXPECT_TRUE(without.compute_seconds.empty());
  });
}

TEST(StepReport, TellsMemoryAndTheWorstStragglerWhereThereIsOne) {
  StepSums sums;
  sums.peak_bytes = {1e6, 3e6, 2e6};
  StepAverages averages(3, 100);
  averages.add(sums, 0.5);
  StepReport report;
  averages.report_into(report);
  EXPECT_EQ(scalar(report, "peak_memory_bytes"), 3e6);
  EXPECT_EQ(scalar(report, "straggler_rank"), std::nullopt);
  report.stragglers = {{2, 1.9}, {1, 1.4}};
  EXPECT_EQ(scalar(report, "straggler_rank"), 2);
  EXPECT_EQ(scalar(report, "straggler_factor"), 1.9);
}

}  // namespace
}  // namespace penstock::train
