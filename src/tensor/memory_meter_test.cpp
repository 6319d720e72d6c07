#include "tensor/memory_meter.h"

#include <gtest/gtest.h>

namespace penstock::tensor {
namespace {

TEST(MemoryMeter, CountsWhatLivesAndTheMostThatDid) {
  const MemoryMeter meter;
  EXPECT_EQ(meter.live_bytes(), 0);
  at::Tensor kept = at::empty({1000}, at::kFloat);
  EXPECT_EQ(meter.live_bytes(), 4000);
  { const at::Tensor gone = at::empty({500}, at::kFloat); }
  EXPECT_EQ(meter.live_bytes(), 4000);
  EXPECT_EQ(meter.peak_bytes(), 6000);
  EXPECT_EQ(meter.allocations(), 2);
  kept.reset();
  EXPECT_EQ(meter.live_bytes(), 0);
}

}  // namespace
}  // namespace penstock::tensor
