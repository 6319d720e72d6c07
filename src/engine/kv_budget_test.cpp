#include "engine/kv_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::engine {
namespace {

using testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;
const KvDemand kDemand{.page_bytes = kMiB, .max_sequences = 4, .max_sequence_tokens = 160, .least_sequence_tokens = 160, .ranks_on_host = 2};  // 10 pages a sequence

TEST(KvBudget, ByItselfItIsWhatAllSequencesNeedWithinARanksPartOfHalfTheMemory) {
  EXPECT_EQ(plan_pages(kDemand, 0, 1000 * kMiB).value(), 40);
  EXPECT_EQ(plan_pages(kDemand, 0, 100 * kMiB).value(), 25) << "half of 100 MiB, for two ranks";
  EXPECT_EQ(plan_pages(kDemand, 0, std::nullopt).value(), 40);
}

TEST(KvBudget, WhatIsGivenIsUsed) {
  EXPECT_EQ(plan_pages(kDemand, 90 * kMiB, 100 * kMiB).value(), 90);
  EXPECT_EQ(plan_pages(kDemand, 10 * kMiB, std::nullopt).value(), 10);
}

TEST(KvBudget, SaysWhatIsNeededAndWhatThereIs) {
  const auto message = [](int64_t budget, int64_t available) {
    const auto result = plan_pages(kDemand, budget, available);
    EXPECT_EQ(result.error().code(), Code::kResourceExhausted);
    return result.error().message();
  };
  EXPECT_THAT(message(9 * kMiB, 100 * kMiB), HasSubstr("9 MiB hold 144 tokens of a sequence on this rank; one of 160 tokens needs 10 MiB"));
  EXPECT_THAT(message(0, 39 * kMiB), HasSubstr("one sequence of 160 tokens needs 10 MiB on this rank; 39 MiB of memory are available"));
  EXPECT_THAT(message(200 * kMiB, 100 * kMiB), HasSubstr("200 MiB for the KV cache of each rank, but 100 MiB are available"));
}

TEST(KvBudget, NamesTheGpuWhoseMemoryItIs) {
  KvDemand on_gpu = kDemand;
  on_gpu.place = " of cuda:1";
  EXPECT_THAT(plan_pages(on_gpu, 0, 39 * kMiB).error().message(), HasSubstr("39 MiB of memory of cuda:1 are available"));
  EXPECT_THAT(plan_pages(on_gpu, 200 * kMiB, 100 * kMiB).error().message(), HasSubstr("but 100 MiB of cuda:1 are available"));
}

TEST(KvBudget, ALongModelMayBeServedWithShorterSequences) {
  KvDemand patient = kDemand;
  patient.least_sequence_tokens = 32;
  EXPECT_EQ(plan_pages(patient, 0, 1000 * kMiB).value(), 40) << "nothing is held back where there is room";
  EXPECT_EQ(plan_pages(patient, 0, 20 * kMiB).value(), 5);
  EXPECT_EQ(plan_pages(patient, 3 * kMiB, std::nullopt).value(), 3);
  EXPECT_THAT(plan_pages(patient, 0, 4 * kMiB).error().message(), HasSubstr("one sequence of 32 tokens needs 2 MiB on this rank; 4 MiB"));
}

TEST(KvBudget, AStageWithoutLayersNeedsNone) {
  KvDemand none = kDemand;
  none.page_bytes = 0;
  EXPECT_EQ(plan_pages(none, 0, kMiB).value(), 40);
  EXPECT_GE(plan_pages(none, kMiB, kMiB).value(), 40) << "it does not hold the others back";
}

}  // namespace
}  // namespace penstock::engine
