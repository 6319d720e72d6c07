#include "cluster/process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <fstream>

#include "base/file.h"
#include "base/temp_dir.h"
#include "cluster/executable_path.h"

namespace penstock::cluster {
namespace {

using testing::HasSubstr;

Deadline soon() { return Deadline::after(seconds(20)); }  // generous: only a failing test waits so long

ProcessOptions shell(const std::string& script) {
  ProcessOptions options;
  options.argv = {"sh", "-c", script};
  return options;
}

std::string output_of(ProcessOptions options) {
  TempDir dir;
  options.log_file = dir.path() / "log";
  auto child = ChildProcess::spawn(std::move(options)).value();
  EXPECT_TRUE(child->wait(soon()).has_value());
  return read_file(dir.path() / "log", 1 << 20).value();
}

// Whether the process has gone (or is a zombie) before the deadline.
bool ends(pid_t pid) {
  const Deadline deadline = soon();
  while (!deadline.passed()) {
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string number, name, state;
    if (!(stat >> number >> name >> state) || state == "Z") return true;
    ::usleep(10'000);
  }
  return false;
}

TEST(ChildProcess, TellsHowItEnded) {
  auto failed = ChildProcess::spawn(shell("exit 3")).value();
  const auto status = failed->wait(soon());
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->describe(), "exit code 3");
  EXPECT_FALSE(status->success());
  EXPECT_EQ(failed->try_wait(), status) << "the same answer every time";
  EXPECT_TRUE(ChildProcess::spawn(shell("true")).value()->wait(soon())->success());
  EXPECT_EQ(ChildProcess::spawn(shell("kill -KILL $$")).value()->wait(soon())->describe(), "killed by signal 9 (SIGKILL)");
}

TEST(ChildProcess, WaitsNoLongerThanTheDeadline) {
  auto child = ChildProcess::spawn(shell("sleep 100")).value();
  EXPECT_EQ(child->try_wait(), std::nullopt);
  EXPECT_EQ(child->wait(Deadline::after(milliseconds(20))), std::nullopt);
  child->terminate();
  EXPECT_EQ(child->wait(soon())->describe(), "killed by signal 15 (SIGTERM)");
}

TEST(ChildProcess, SaysWhyAProgramCannotBeRun) {
  TempDir dir;
  write_file_atomic(dir.path() / "plain", "no program");
  ProcessOptions options;
  const auto refusal = [&](const std::string& program) {
    options.argv = {program};
    return ChildProcess::spawn(options).error();
  };
  EXPECT_EQ(refusal("no-such-program-anywhere").code(), Code::kNotFound);
  EXPECT_THAT(refusal("no-such-program-anywhere").message(), HasSubstr("'no-such-program-anywhere': no such program in PATH"));
  EXPECT_EQ(refusal("/nowhere/program").code(), Code::kNotFound);
  EXPECT_THAT(refusal("/nowhere/program").message(), HasSubstr("cannot start /nowhere/program: No such file"));
  const Error not_executable = refusal((dir.path() / "plain").string());
  EXPECT_TRUE(not_executable.code() == Code::kPermissionDenied) << not_executable.message();
  options.working_folder = "/nowhere";
  EXPECT_THAT(refusal("/bin/true").message(), HasSubstr("in folder /nowhere"));
  options.log_file = "/nowhere/log";
  EXPECT_EQ(refusal("/bin/true").code(), Code::kDataLoss);
}

TEST(ChildProcess, GetsItsOwnEnvironmentOverTheInheritedOne) {
  ::setenv("PENSTOCK_TEST_INHERITED", "old", 1);
  ::setenv("PENSTOCK_TEST_KEPT", "kept", 1);
  ProcessOptions options = shell("echo $PENSTOCK_TEST_INHERITED $PENSTOCK_TEST_KEPT $PENSTOCK_TEST_NEW");
  options.env = {"PENSTOCK_TEST_INHERITED=first", "PENSTOCK_TEST_NEW=a b", "PENSTOCK_TEST_INHERITED=second"};
  EXPECT_EQ(output_of(options), "second kept a b\n");
}

TEST(ChildProcess, WritesBothOutputsToTheLogAndReadsNothing) {
  EXPECT_EQ(output_of(shell("echo out; echo err >&2; cat; pwd >/dev/null")), "out\nerr\n");
}

TEST(ChildProcess, StartsWithNoBlockedSignalsAndNoForeignFiles) {
  // Given a parent that blocks SIGTERM, ignores SIGPIPE and has a file open without close-on-exec,
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &blocked, &before), 0);
  auto* const old_handler = ::signal(SIGPIPE, SIG_IGN);
  const int leaked = ::open("/dev/zero", O_RDONLY);
  // when it starts a child, then the child has none of that.
  const std::string output = output_of(shell("grep -E 'SigBlk|SigIgn' /proc/self/status; ls -l /proc/self/fd"));
  ::close(leaked);
  ::signal(SIGPIPE, old_handler);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_THAT(output, HasSubstr("SigBlk:\t0000000000000000"));
  EXPECT_THAT(output, testing::Not(HasSubstr("/dev/zero")));
  const size_t ignored = output.find("SigIgn:\t");
  ASSERT_NE(ignored, std::string::npos);
  EXPECT_EQ(std::stoull(output.substr(ignored + 8, 16), nullptr, 16) >> (SIGPIPE - 1) & 1, 0u);
}

TEST(ChildProcess, CanHoldAStopSignalBackUntilTheProgramTakesIt) {
  ProcessOptions options = shell("kill -TERM $$; kill -INT $$; exit 3");
  options.hold_stop_signals = true;
  EXPECT_EQ(ChildProcess::spawn(options).value()->wait(soon()), (ExitStatus{false, 3}));
  options.hold_stop_signals = false;
  EXPECT_EQ(ChildProcess::spawn(options).value()->wait(soon()), (ExitStatus{true, SIGTERM}));
}

TEST(ChildProcess, IsKilledWithItsOwnChildrenByTheDestructor) {
  TempDir dir;
  const auto grandchild = dir.path() / "pid";
  pid_t pid = 0;
  {
    auto child = ChildProcess::spawn(shell("sleep 100 & echo $! > " + grandchild.string() + ".new; mv " + grandchild.string() + ".new " +
                                           grandchild.string() + "; wait"))
                     .value();
    pid = child->pid();
    const Deadline deadline = soon();
    while (!std::filesystem::exists(grandchild) && !deadline.passed()) ::usleep(10'000);
  }
  EXPECT_EQ(::kill(pid, 0), -1) << "reaped";
  EXPECT_TRUE(ends(std::stoi(read_file(grandchild, 100).value())));
}

TEST(ChildProcess, OutlivesTheThreadThatSpawnedIt) {
  // Linux delivers the parent-death signal when the starting thread ends, which must not be the caller's.
  std::unique_ptr<ChildProcess> child;
  std::thread([&] { child = ChildProcess::spawn(shell("sleep 100")).value(); }).join();
  EXPECT_EQ(child->wait(Deadline::after(milliseconds(200))), std::nullopt);
}

TEST(ChildProcess, DiesWithItsParent) {
  // Given a parent (a fork of this test) that starts a child, when the parent is killed, then the child ends.
  int ends_of_pipe[2];
  ASSERT_EQ(::pipe(ends_of_pipe), 0);
  const pid_t parent = ::fork();
  ASSERT_GE(parent, 0);
  if (parent == 0) {
    auto child = ChildProcess::spawn(shell("sleep 100"));
    const pid_t pid = child.ok() ? child.value()->pid() : -1;
    [[maybe_unused]] const ssize_t written = ::write(ends_of_pipe[1], &pid, sizeof pid);
    for (;;) ::pause();
  }
  pid_t child = -1;
  ASSERT_EQ(::read(ends_of_pipe[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  ::close(ends_of_pipe[0]);
  ::close(ends_of_pipe[1]);
  ASSERT_GT(child, 0);
  ASSERT_EQ(::kill(parent, SIGKILL), 0);
  ::waitpid(parent, nullptr, 0);
  EXPECT_TRUE(ends(child));
}

TEST(ChildProcess, CanBeSpawnedFromManyThreadsThatAllocate) {
  std::atomic<bool> stop = false;
  std::thread allocator([&] {
    while (!stop) std::vector<std::string>(100, std::string(100, 'x')).clear();
  });
  std::atomic<int> good = 0;
  std::vector<std::thread> spawners;
  for (int t = 0; t < 3; ++t) {
    spawners.emplace_back([&] {
      for (int i = 0; i < 10; ++i) {
        auto child = ChildProcess::spawn(shell("exit 7"));
        if (child.ok() && child.value()->wait(soon()) == ExitStatus{false, 7}) ++good;
      }
    });
  }
  for (auto& spawner : spawners) spawner.join();
  stop = true;
  allocator.join();
  EXPECT_EQ(good, 30);
}

TEST(ExecutableFolder, HoldsTheRunningProgram) { EXPECT_TRUE(std::filesystem::exists(executable_folder() / "cluster_test")); }

}  // namespace
}  // namespace penstock::cluster
