#include "cluster/device_assignment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::cluster {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> numbered(int count) { return visible_devices(config::fixed_environment({}), count); }
std::string next(DeviceAssignment& assignment, int count, std::vector<int> among = {}) {
  return device_list(assignment.acquire(count, among).value());
}

TEST(DeviceAssignment, GoesRoundTheDevices) {
  DeviceAssignment eight(numbered(8));
  EXPECT_EQ(next(eight, 4), "0,1,2,3");
  EXPECT_EQ(next(eight, 4), "4,5,6,7");
  EXPECT_EQ(eight.num_free(), 0);
}

TEST(DeviceAssignment, StaysWithinTheDeviceIds) {
  DeviceAssignment eight(numbered(8));
  const std::vector<int> ids = {2, 3, 4, 5};
  EXPECT_EQ(next(eight, 2, ids), "2,3");
  EXPECT_EQ(next(eight, 2, ids), "4,5");
  EXPECT_EQ(eight.acquire(1, ids).error().code(), Code::kResourceExhausted);
  EXPECT_EQ(eight.num_free(), 4);
}

TEST(DeviceAssignment, RemapsAnInheritedList) {
  DeviceAssignment two(visible_devices(config::fixed_environment({{"CUDA_VISIBLE_DEVICES", "6,7"}}), 8));
  const std::vector<int> first = {0};
  EXPECT_EQ(next(two, 1, first), "6") << "device 0 of the model is the first visible one";
  EXPECT_EQ(next(two, 1), "7");
}

TEST(DeviceAssignment, NeverHandsOutADeviceThatIsInUse) {
  // Given four devices and two workers, when the second stops and another starts, then it gets the free ones, not the first's.
  DeviceAssignment four(numbered(4));
  EXPECT_EQ(next(four, 2), "0,1");
  const std::vector<std::string> second = four.acquire(2).value();
  four.release(second);
  EXPECT_EQ(next(four, 2), "2,3");
}

TEST(DeviceAssignment, KeepsHoldersApartThroughAnyOrderOfStartsAndStops) {
  DeviceAssignment assignment(numbered(7));
  std::mt19937 random(1);
  std::vector<std::vector<std::string>> held;
  for (int round = 0; round < 2000; ++round) {
    if (!held.empty() && random() % 2 == 0) {
      const size_t which = random() % held.size();
      assignment.release(held[which]);
      held.erase(held.begin() + static_cast<ptrdiff_t>(which));
    } else if (auto devices = assignment.acquire(static_cast<int>(random() % 4)); devices.ok()) {
      held.push_back(*devices);
    }
    std::multiset<std::string> all;
    for (const auto& devices : held) all.insert(devices.begin(), devices.end());
    ASSERT_EQ(std::set<std::string>(all.begin(), all.end()).size(), all.size()) << "a device is held twice in round " << round;
    ASSERT_EQ(assignment.num_free(), 7 - static_cast<int>(all.size()));
  }
}

TEST(DeviceAssignment, SaysHowManyAreMissing) {
  DeviceAssignment three(numbered(3));
  EXPECT_EQ(next(three, 2), "0,1");
  const auto refused = three.acquire(2);
  EXPECT_EQ(refused.error().code(), Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message(), HasSubstr("expected 2, found 1 free of 3"));
  EXPECT_EQ(three.num_free(), 1) << "a refused request holds nothing";
  const std::vector<int> outside = {3};
  EXPECT_EQ(three.acquire(1, outside).error().message(), "deviceIds: expected GPUs from 0 to 2, found 3: this server has 3");
}

TEST(DeviceAssignment, RefusesToTakeBackWhatWasNotTaken) {
  DeviceAssignment one(numbered(1));
  const std::vector<std::string> device = {"0"};
  EXPECT_THROW(one.release(device), Bug);
}

std::vector<std::string> inherited(const std::string& list, int num_gpus) {
  return visible_devices(config::fixed_environment({{"CUDA_VISIBLE_DEVICES", list}}), num_gpus);
}

TEST(VisibleDevices, ReadTheListAsCudaDoes) {
  EXPECT_THAT(inherited("3, 1", 8), ElementsAre("3", "1"));
  EXPECT_THAT(inherited("1,9,2", 8), ElementsAre("1")) << "the list ends at the first device that does not exist";
  EXPECT_THAT(inherited("-1", 8), IsEmpty());
  EXPECT_THAT(inherited("", 8), IsEmpty());
  EXPECT_THAT(inherited("1,1", 8), IsEmpty());
  EXPECT_THAT(inherited("GPU-8a,MIG-b", 8), ElementsAre("GPU-8a", "MIG-b"));
  EXPECT_THAT(inherited("0", 0), IsEmpty());
  EXPECT_THAT(numbered(2), ElementsAre("0", "1"));
}

TEST(VisibleDevices, CanBeEmulatedForTests) {
  const auto emulated = [](std::map<std::string, std::string> variables) { return visible_devices(config::fixed_environment(std::move(variables))); };
  EXPECT_EQ(device_list(emulated({{"PENSTOCK_TEST_DEVICES", "8"}})), "0,1,2,3,4,5,6,7");
  EXPECT_EQ(device_list(emulated({{"PENSTOCK_TEST_DEVICES", "8"}, {"CUDA_VISIBLE_DEVICES", "6,7"}})), "6,7") << "an inherited list counts as ever";
  EXPECT_THROW(emulated({{"PENSTOCK_TEST_DEVICES", "many"}}), Error);
}

TEST(VisibleDevices, AreCountedFromTheDriverElseFromDeviceFiles) {
  TempDir dir;
  const auto driver = dir.path() / "gpus", devices = dir.path() / "dev";
  std::filesystem::create_directory(devices);
  EXPECT_EQ(count_gpus(driver, devices), 0);
  for (const char* name : {"nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"}) write_file_atomic(devices / name, "");
  EXPECT_EQ(count_gpus(driver, devices), 3);
  std::filesystem::create_directories(driver / "0000:01:00.0");
  EXPECT_EQ(count_gpus(driver, devices), 1);
}

}  // namespace
}  // namespace penstock::cluster
