#include "handler/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::handler {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr Clock::time_point at(int ms) { return Clock::time_point(milliseconds(ms)); }

TEST(Batcher, AFullBatchIsDueAtOnce) {
  Batcher batcher(2, milliseconds(100));
  batcher.add(1, "a", at(0));
  EXPECT_THAT(batcher.take(at(0)), IsEmpty());
  batcher.add(2, "a", at(1));
  batcher.add(3, "a", at(1));
  EXPECT_THAT(batcher.take(at(1)), ElementsAre(1, 2));
  EXPECT_THAT(batcher.take(at(1)), IsEmpty());
  EXPECT_EQ(batcher.size(), 1u);
}

TEST(Batcher, APartOfABatchIsDueWhenItsOldestHasWaited) {
  Batcher batcher(8, milliseconds(100));
  EXPECT_EQ(batcher.next_due(), std::nullopt);
  batcher.add(1, "a", at(0));
  batcher.add(2, "a", at(60));
  EXPECT_EQ(batcher.next_due(), at(100));
  EXPECT_THAT(batcher.take(at(99)), IsEmpty());
  EXPECT_THAT(batcher.take(at(100)), ElementsAre(1, 2));
}

TEST(Batcher, WhatDoesNotFitTogetherIsNotMixedAndTheOldestGoesFirst) {
  Batcher batcher(2, milliseconds(100));
  batcher.add(1, "a", at(0));
  batcher.add(2, "b", at(1));
  batcher.add(3, "b", at(2));
  EXPECT_THAT(batcher.take(at(2)), ElementsAre(2, 3)) << "full";
  batcher.add(4, "b", at(3));
  EXPECT_THAT(batcher.take(at(200)), ElementsAre(1));
  EXPECT_THAT(batcher.take(at(200)), ElementsAre(4));
}

TEST(Batcher, WhatIsRemovedNeverRuns) {
  Batcher batcher(2, milliseconds(0));
  batcher.add(1, "a", at(0));
  batcher.add(2, "a", at(0));
  batcher.remove(1);
  batcher.remove(9);
  EXPECT_THAT(batcher.take(at(0)), ElementsAre(2));
}

TEST(Batcher, ABatchOfOneNeverWaits) {
  Batcher batcher(1, milliseconds(1000));
  batcher.add(1, "a", at(0));
  EXPECT_THAT(batcher.take(at(0)), ElementsAre(1));
}

}  // namespace
}  // namespace penstock::handler
