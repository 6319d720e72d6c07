#include "cluster/core_sets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/file.h"
#include "base/temp_dir.h"
#include "cluster/process.h"

namespace penstock::cluster {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(CoreSets, GivesEachRankCoresOfItsOwn) {
  const std::vector<int> usable = {0, 2, 3, 7};
  EXPECT_THAT(cores_of_rank(0, 2, 2, usable), ElementsAre(0, 2));
  EXPECT_THAT(cores_of_rank(1, 2, 2, usable), ElementsAre(3, 7));
  EXPECT_THAT(cores_of_rank(3, 4, 1, usable), ElementsAre(7));
}

TEST(CoreSets, LetsRanksRunAnywhereWhenThereAreNotEnoughCores) {
  EXPECT_THAT(cores_of_rank(0, 3, 2, {0, 1, 2, 3}), IsEmpty());
  EXPECT_THAT(cores_of_rank(0, 1, 0, {0, 1}), IsEmpty());
  EXPECT_THAT(cores_of_rank(0, 1, 1, {}), IsEmpty());
}

TEST(CoreSets, AProcessRunsOnItsCores) {
  const std::vector<int> usable = usable_cores();
  ASSERT_FALSE(usable.empty());
  const TempDir folder;
  ProcessOptions options;
  options.argv = {"grep", "Cpus_allowed_list", "/proc/self/status"};
  options.cores = {usable.back()};
  options.log_file = folder.path() / "log";
  const auto child = ChildProcess::spawn(options).value();
  ASSERT_TRUE(child->wait(Deadline::after(seconds(20))));
  EXPECT_EQ(read_file(folder.path() / "log", 1000).value(), "Cpus_allowed_list:\t" + std::to_string(usable.back()) + "\n");
}

}  // namespace
}  // namespace penstock::cluster
