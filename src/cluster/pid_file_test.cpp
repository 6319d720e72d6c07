#include "cluster/pid_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::cluster {
namespace {

class PidFileTest : public ::testing::Test {
 protected:
  std::optional<PidFileHolder> holder() { return PidFile::holder(path_).value(); }
  std::string content() { return read_file(path_, 100).value(); }
  void write(const std::string& text) { std::ofstream(path_) << text; }

  const TempDir folder_;
  const std::filesystem::path path_ = folder_.path() / ".server.pid";
};

TEST_F(PidFileTest, SaysWhoHoldsItWhileHeld) {
  EXPECT_FALSE(holder());
  {
    const PidFile file = std::move(PidFile::take(path_)).value();
    EXPECT_EQ(content(), fmt::format("{}\n", ::getpid()));
    ASSERT_TRUE(holder());
    EXPECT_EQ(holder()->pid, ::getpid());
    EXPECT_FALSE(holder()->told_to_stop);
    const auto second = PidFile::take(path_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code(), Code::kAlreadyExists);
    EXPECT_NE(second.error().message().find(std::to_string(::getpid())), std::string::npos);
  }
  EXPECT_FALSE(holder());
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(PidFileTest, ANumberWithoutALockIsNobody) {
  write(fmt::format("{}\n", ::getppid()));  // a process that lives, and never held the file
  EXPECT_FALSE(holder());
  const PidFile file = std::move(PidFile::take(path_)).value();
  EXPECT_EQ(content(), fmt::format("{}\n", ::getpid()));
}

TEST_F(PidFileTest, AKilledHolderLeavesItFree) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto file = PidFile::take(path_);
    (void)!::write(ready[1], "x", 1);
    ::pause();
    ::_exit(1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ASSERT_TRUE(holder());
  EXPECT_EQ(holder()->pid, child);
  EXPECT_FALSE(PidFile::wait_free(path_, Deadline::after(milliseconds(0))));
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(std::filesystem::exists(path_));
  EXPECT_TRUE(PidFile::wait_free(path_, Deadline::after(seconds(10))));
  EXPECT_TRUE(PidFile::take(path_));
}

TEST_F(PidFileTest, StopSendsTheSignalAndNotesIt) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGTERM, SIG_IGN);
    const auto file = PidFile::take(path_);
    (void)!::write(ready[1], "x", 1);
    ::pause();
    ::_exit(1);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_FALSE(PidFile::stop(path_, holder().value()));
  EXPECT_TRUE(holder()->told_to_stop);
  EXPECT_EQ(holder()->pid, child);
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  const auto gone = PidFile::stop(path_, {child, false});
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->code(), Code::kUnavailable);
}

TEST_F(PidFileTest, ALinkIsNotFollowed) {
  const auto target = folder_.path() / "precious";
  std::ofstream(target) << "text";
  std::filesystem::create_symlink(target, path_);
  const auto taken = PidFile::take(path_);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code(), Code::kPermissionDenied);
  EXPECT_EQ(PidFile::holder(path_).error().code(), Code::kPermissionDenied);
  EXPECT_EQ(read_file(target, 100).value(), "text");
}

}  // namespace
}  // namespace penstock::cluster
