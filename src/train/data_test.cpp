#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "train/data_loader.h"
#include "train/lr_schedule.h"

namespace penstock::train {
namespace {

// Documents of the given lengths, of tokens that count up from 0.
data::MemoryStream counting(const std::vector<int64_t>& documents) {
  data::MemoryStream stream;
  uint32_t next = 0;
  for (const int64_t length : documents) {
    data::EncodedDocument document;
    for (int64_t i = 0; i < length; ++i) document.tokens.push_back(next++);
    stream.add(document);
  }
  return stream;
}

data::MemoryStream counting(int64_t size) { return counting(std::vector<int64_t>{size}); }

std::vector<int64_t> starts(const std::vector<pipeline::Microbatch>& microbatches) {
  std::vector<int64_t> out;
  for (const auto& m : microbatches) {
    for (int64_t b = 0; b < m.inputs[0].size(0); ++b) out.push_back(m.inputs[0][b][0].item<int64_t>());
  }
  return out;
}

TEST(DataLoader, ReplicasTogetherSeeWhatOneProcessSees) {
  const data::MemoryStream stream = counting(1000);
  const data::Rows rows(stream, 8, data::Packing::kStream);
  const DataLoader one(rows, {1, 4, 3, 8}, 5), two(rows, {2, 2, 3, 8}, 5);
  for (int step = 0; step < 20; ++step) {
    auto joined = starts(two.step(step, 0));
    const auto second = starts(two.step(step, 1));
    joined.insert(joined.end(), second.begin(), second.end());
    EXPECT_EQ(starts(one.step(step, 0)), joined) << "step " << step;
  }
}

TEST(DataLoader, VisitsEachWindowOnceAnEpochInAnotherOrderEachTime) {
  const data::MemoryStream stream = counting(8 * 11 + 1);  // 11 windows, 10 of which fit behind any offset
  const data::Rows rows(stream, 8, data::Packing::kStream);
  const DataLoader loader(rows, {1, 1, 1, 8}, 5);
  std::vector<int64_t> first, second;
  for (int s = 0; s < 10; ++s) first.push_back(starts(loader.step(s, 0))[0]);
  for (int s = 10; s < 20; ++s) second.push_back(starts(loader.step(s, 0))[0]);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 10u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 10u);
  for (auto& s : first) s /= 8;
  for (auto& s : second) s /= 8;
  EXPECT_NE(first, second);
}

TEST(DataLoader, VisitsEachRowOfWholeDocumentsOnceAnEpoch) {
  const data::MemoryStream stream = counting({5, 3, 8, 2, 2, 20, 1});
  const data::Rows rows(stream, 8, data::Packing::kWhole);
  const DataLoader loader(rows, {1, 1, 1, 8}, 5);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<int64_t> seen;
    for (int64_t s = 0; s < rows.count(); ++s) seen.insert(starts(loader.step(epoch * rows.count() + s, 0))[0]);
    EXPECT_EQ(seen, (std::set<int64_t>{0, 8, 16, 20, 28, 36}));
  }
}

TEST(DataLoader, SaysWhereDocumentsBeginOnlyWhenTheyAreApart) {
  const data::MemoryStream stream = counting({5, 3, 30});
  for (const auto packing : {data::Packing::kStream, data::Packing::kDocument}) {
    const data::Rows rows(stream, 8, packing);
    const auto microbatch = validation_batch(rows, {1, 1, 2, 8}, 0, 0);
    EXPECT_EQ(microbatch.inputs.size(), packing == data::Packing::kStream ? 1u : 2u);
    if (packing == data::Packing::kStream) continue;
    EXPECT_TRUE(microbatch.inputs[1][0].equal(at::tensor({0, 0, 0, 0, 0, 5, 5, 5}, at::kInt)));
    EXPECT_TRUE(microbatch.targets[0][0].equal(at::tensor({1, 2, 3, 4, -1, 6, 7, -1}, at::kLong)));
    EXPECT_EQ(count_targets({microbatch}), 14);
  }
}

// Every token once, but for the first of a document, however many replicas and whatever is left over.
TEST(ValidationBatch, SeesEverySampleExactlyOnceOverAnyNumberOfReplicas) {
  std::vector<int64_t> documents;
  for (int64_t i = 0; i < 101; ++i) documents.push_back(8);  // 101 samples, each a row
  const data::MemoryStream stream = counting(documents);
  for (const auto packing : {data::Packing::kStream, data::Packing::kDocument, data::Packing::kWhole}) {
    const data::Rows rows(stream, 8, packing);
    for (const int replicas : {1, 2, 3, 4, 7}) {
      const BatchShape shape{replicas, 1, 3, 8};
      std::vector<int64_t> seen, expected;
      for (int64_t b = 0; b < validation_batches(rows, shape); ++b) {
        for (int r = 0; r < replicas; ++r) {
          const auto targets = validation_batch(rows, shape, b, r).targets[0].flatten();
          for (int64_t i = 0; i < targets.numel(); ++i) {
            if (targets[i].item<int64_t>() >= 0) seen.push_back(targets[i].item<int64_t>());
          }
        }
      }
      std::sort(seen.begin(), seen.end());
      for (int64_t token = 1; token < stream.size(); ++token) {
        if (packing == data::Packing::kStream || token % 8 != 0) expected.push_back(token);
      }
      EXPECT_EQ(seen, expected) << replicas << " replicas";
    }
  }
}

TEST(LearningRate, WarmsUpThenFollowsACosineToItsFloor) {
  config::OptimizerConfig o;
  o.lr = 1;
  o.min_lr_ratio = 0.1;
  o.warmup_steps = 3;
  EXPECT_DOUBLE_EQ(learning_rate(o, 0, 0), 0.25);
  EXPECT_DOUBLE_EQ(learning_rate(o, 3, 0), 1);
  EXPECT_NEAR(learning_rate(o, 50, 0.5), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(o, 100, 1), 0.1, 1e-12);
}

TEST(LearningRate, FallsAsTheScheduleSays) {
  config::OptimizerConfig o;
  o.lr = 2;
  o.min_lr_ratio = 0;
  using Schedule = config::LearningRateSchedule;
  o.schedule = Schedule::kLinear;
  EXPECT_DOUBLE_EQ(learning_rate(o, 9, 0.25), 1.5);
  o.schedule = Schedule::kConstant;
  EXPECT_DOUBLE_EQ(learning_rate(o, 9, 0.99), 2);
  o.schedule = Schedule::kWarmupStableDecay;
  o.decay_fraction = 0.2;
  EXPECT_DOUBLE_EQ(learning_rate(o, 9, 0.8), 2);
  EXPECT_NEAR(learning_rate(o, 9, 0.9), 1, 1e-12);
  EXPECT_NEAR(learning_rate(o, 9, 1), 0, 1e-12);
}

TEST(RunProgress, FollowsWhicheverLimitIsNearer) {
  EXPECT_DOUBLE_EQ(run_progress(5, 10, 0, 0), 0.5);
  EXPECT_DOUBLE_EQ(run_progress(5, 10, 9, 10), 0.9);
  EXPECT_DOUBLE_EQ(run_progress(5, 0, 20, 10), 1);
}

}  // namespace
}  // namespace penstock::train
