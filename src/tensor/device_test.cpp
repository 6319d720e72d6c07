#include "tensor/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::tensor {
namespace {

using ::testing::HasSubstr;

TEST(DeviceTest, NamesTheCpu) { EXPECT_EQ(find_device("cpu", 3).value(), at::Device(at::kCPU)); }

TEST(DeviceTest, AutoTakesAGpuWhereThereIsOne) {
  EXPECT_EQ(find_device("auto", 0).value().is_cuda(), num_gpus() > 0);
}

TEST(DeviceTest, RanksGoRoundTheGpus) {
  if (num_gpus() == 0) GTEST_SKIP() << "no GPU";
  EXPECT_EQ(find_device("cuda", num_gpus()).value(), at::Device(at::kCUDA, 0));
  EXPECT_EQ(find_device("cuda:0", 5).value(), at::Device(at::kCUDA, 0));
}

TEST(DeviceTest, SaysThatAGpuIsMissing) {
  const auto missing = find_device("cuda:99", 0);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code(), Code::kFailedPrecondition);
  EXPECT_THAT(missing.error().message(), HasSubstr("device 'cuda:99': found"));
}

TEST(DeviceTest, RefusesOtherNames) {
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:0x", "CPU"}) {
    const auto refused = find_device(name, 0);
    ASSERT_FALSE(refused.ok()) << name;
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument) << name;
  }
}

TEST(DeviceTest, KnowsTheMemoryOfAGpu) {
  EXPECT_FALSE(device_memory(at::Device(at::kCPU)));
  if (num_gpus() == 0) GTEST_SKIP() << "no GPU";
  const auto memory = device_memory(at::Device(at::kCUDA, 0));
  ASSERT_TRUE(memory);
  EXPECT_GT(memory->free, 0);
  EXPECT_GE(memory->total, memory->free);
}

}  // namespace
}  // namespace penstock::tensor
