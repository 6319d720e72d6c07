#include "base/host_memory.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock {
namespace {

class HostMemory : public testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_.path() / path).parent_path());
    write_file_atomic(root_.path() / path, text);
  }
  [[nodiscard]] std::optional<int64_t> available() const { return available_memory(root_.path()); }
  TempDir root_;
};

TEST_F(HostMemory, IsWhatTheSystemSaysWithoutAGroup) {
  EXPECT_EQ(available(), std::nullopt);
  write("proc/meminfo", "MemTotal:       9000 kB\nMemAvailable:       4096 kB\n");
  EXPECT_EQ(available(), 4 << 20);
}

TEST_F(HostMemory, IsLessWhereAGroupOnTheWayLeavesLess) {
  write("proc/meminfo", "MemAvailable:       4096 kB\n");
  write("proc/self/cgroup", "0::/outer/inner\n");
  EXPECT_EQ(available(), 4 << 20);
  write("sys/fs/cgroup/outer/inner/memory.max", "max\n");
  write("sys/fs/cgroup/outer/inner/memory.current", "1000\n");
  EXPECT_EQ(available(), 4 << 20);
  write("sys/fs/cgroup/outer/memory.max", "3000000\n");
  write("sys/fs/cgroup/outer/memory.current", "1000000\n");
  EXPECT_EQ(available(), 2000000);
  write("sys/fs/cgroup/outer/memory.stat", "anon 5\ninactive_file 500000\n");
  EXPECT_EQ(available(), 2500000);
  write("sys/fs/cgroup/outer/inner/memory.max", "900\n");
  EXPECT_EQ(available(), 0);
}

TEST(HostMemoryOfThisMachine, IsKnown) { EXPECT_GT(available_memory().value_or(0), 0); }

}  // namespace
}  // namespace penstock
