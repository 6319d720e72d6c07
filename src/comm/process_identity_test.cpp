#include "comm/process_identity.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace penstock::comm {
namespace {

TEST(ProcessIdentity, ReadsBackWhatItWrites) {
  const ProcessIdentity self = this_process();
  EXPECT_EQ(self.pid, ::getpid());
  EXPECT_FALSE(self.host.empty());
  EXPECT_EQ(ProcessIdentity::from_text(self.to_text()), self);
  for (const char* wrong : {"", "a\tb\t1", "a\tb\tx\t1", "a\tb\t1\t2\t3", "a\tb\t0\t1"}) EXPECT_FALSE(ProcessIdentity::from_text(wrong)) << wrong;
}

TEST(ProcessIdentity, ALivingProcessHasNotEnded) { EXPECT_FALSE(has_ended(this_process(), this_process())); }

TEST(ProcessIdentity, AnotherProcessWithTheSameIdIsNotTheOneThatEnded) {
  ProcessIdentity earlier = this_process();
  earlier.start_ticks -= 1;
  EXPECT_TRUE(has_ended(earlier, this_process()));
}

TEST(ProcessIdentity, AProcessOfAnotherMachineIsNeverKnownToHaveEnded) {
  ProcessIdentity elsewhere = this_process();
  elsewhere.pid_space = "another boot";
  elsewhere.start_ticks -= 1;
  EXPECT_FALSE(has_ended(elsewhere, this_process()));
}

TEST(ProcessIdentity, AKilledChildHasEndedBeforeAndAfterItIsReaped) {
  const ProcessIdentity self = this_process();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::pause();
    ::_exit(0);
  }
  ProcessIdentity child = self;
  child.pid = pid;
  child.start_ticks = 0;
  EXPECT_FALSE(has_ended(child, self));
  ::kill(pid, SIGKILL);
  siginfo_t ended{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(pid), &ended, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(has_ended(child, self)) << "a zombie";
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  EXPECT_TRUE(has_ended(child, self)) << "no more";
}

}  // namespace
}  // namespace penstock::comm
