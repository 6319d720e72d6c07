#include "engine/chunk_sizer.h"

#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

// A machine whose steps take base + fixed (if there is a prompt) + per_row · rows.
struct Machine {
  double base, fixed, per_row;
  [[nodiscard]] double step(int prompt_rows) const { return base + (prompt_rows > 0 ? fixed : 0) + per_row * prompt_rows; }
};

// The rows that it settles on after a prompt of many steps.
int settled(ChunkSizer& sizer, const Machine& machine) {
  for (int i = 0; i < 50; ++i) sizer.observe(4, 0, machine.step(0));
  for (int i = 0; i < 50; ++i) {
    const int rows = sizer.prompt_rows();
    sizer.observe(4, rows, machine.step(rows));
  }
  return sizer.prompt_rows();
}

TEST(ChunkSizer, FindsTheRowsThatStretchAStepNoFurtherThanItMay) {
  for (const Machine machine : {Machine{25, 0, 2}, Machine{25, 0, 0.5}, Machine{10, 3, 0.1}, Machine{2, 0.5, 0.01}}) {
    ChunkSizer sizer(512);
    const int rows = settled(sizer, machine);
    EXPECT_LE(machine.step(rows), 1.85 * machine.base) << machine.base << " " << machine.per_row;
    EXPECT_GE(machine.step(rows + rows / 5 + 2), 1.75 * machine.base) << "more rows would have fitted: it gave " << rows;
  }
}

TEST(ChunkSizer, StaysWithinItsBoundsHoweverSlowOrFastRowsAre) {
  ChunkSizer slow(512), fast(512), small(4);
  EXPECT_EQ(settled(slow, {10, 20, 5}), ChunkSizer::kMinRows);
  EXPECT_EQ(settled(fast, {10, 0, 1e-4}), 512);
  EXPECT_EQ(small.prompt_rows(), 4);
}

TEST(ChunkSizer, StartsWithLittleAndLearnsFromPromptsAloneUntilOneRanBesideStreams) {
  ChunkSizer sizer(512);
  EXPECT_EQ(sizer.prompt_rows(), ChunkSizer::kFirstRows);
  sizer.observe(0, 500, 500);  // 1 ms a row
  EXPECT_EQ(sizer.prompt_rows(), ChunkSizer::kFirstRows) << "what a step takes without a prompt is not known";
  sizer.observe(1, 0, 100);
  EXPECT_EQ(sizer.prompt_rows(), 80);
  sizer.observe(1, 80, 100 + 160);  // beside a stream, a row takes 2 ms
  EXPECT_EQ(sizer.prompt_rows(), 40);
  sizer.observe(0, 500, 500);
  EXPECT_EQ(sizer.prompt_rows(), 40);
}

}  // namespace
}  // namespace penstock::engine
