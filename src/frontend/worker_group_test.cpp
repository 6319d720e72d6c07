#include "frontend/worker_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <deque>
#include <thread>

#include "base/file.h"
#include "base/temp_dir.h"
#include "frontend/fake_worker_client_test.h"

namespace penstock::frontend {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// What a group has reported, in order, as text.
class Reports final : public GroupListener {
 public:
  void on_group_ready(int, std::shared_ptr<WorkerClient>, const WorkerInfo& info) override { add("ready: " + info.architecture); }
  void on_group_lost(int, const Error& cause, bool for_good) override {
    add(fmt::format("lost{}: {}: {}", for_good ? " for good" : "", to_string(cause.code()), cause.message()));
  }
  bool on_group_stopping(int, Deadline until) override {
    if (busy) {  // as long as it may
      while (!until.passed()) std::this_thread::sleep_for(milliseconds(1));
      return false;
    }
    add("stopping");
    return true;
  }
  std::atomic<bool> busy{false};
  void on_group_ended(int) override { add("ended"); }
  [[nodiscard]] std::string next() {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(20));
    while (reports_.empty()) {
      if (!added_.wait(mutex_, deadline)) return "nothing within 20 s";
    }
    std::string report = reports_.front();
    reports_.pop_front();
    return report;
  }

 private:
  void add(std::string report) {
    MutexLock lock(mutex_);
    reports_.push_back(std::move(report));
    added_.notify_all();
  }
  Mutex mutex_;
  CondVar added_;
  std::deque<std::string> reports_ GUARDED_BY(mutex_);
};

// A group of two ranks whose program is a shell script: it prints how it was called, then does what `script` says.
class WorkerGroupTest : public testing::Test {
 protected:
  WorkerGroup& start(const std::string& script, const std::function<void(WorkerGroupOptions&)>& change = [](WorkerGroupOptions&) {}) {
    write_script(script);
    WorkerGroupOptions options;
    options.model = "tiny";
    options.command = {dir_.path() / "worker", "serve", "--model", "/models/tiny"};
    options.log_folder = dir_.path() / "logs";
    options.socket_folder = dir_.path();
    options.num_ranks = 2;
    options.backoff_unit = milliseconds(10);
    change(options);
    group_ = std::make_unique<WorkerGroup>(options, [this](const auto&) { return client; }, reports);
    group_->start();
    return *group_;
  }
  void write_script(const std::string& script) {
    const auto program = dir_.path() / "worker";
    write_file_atomic(program, "#!/bin/sh\necho \"rank $RANK of $WORLD_SIZE extra $EXTRA: threads $OMP_NUM_THREADS devices $CUDA_VISIBLE_DEVICES: $*\"\n" + script);
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  }
  std::string log(int rank) { return read_file(dir_.path() / "logs" / fmt::format("rank-{}.log", rank), 1 << 20).value(); }

  TempDir dir_;
  Reports reports;
  std::shared_ptr<FakeWorkerClient> client = std::make_shared<FakeWorkerClient>();
  std::unique_ptr<WorkerGroup> group_;
};

constexpr const char* kServe = "exec sleep 1000\n";

TEST_F(WorkerGroupTest, RanksAreStartedWithTheirEnvironmentAndArguments) {
  start(kServe, [](WorkerGroupOptions& options) {
    options.visible_devices = "4,5";
    options.omp_threads = 3;
    options.command.insert(options.command.end(), {"--dtype", "auto"});
    options.environment = {"EXTRA=more"};
  });
  ASSERT_EQ(reports.next(), "ready: Fake");
  const Deadline deadline = Deadline::after(seconds(10));
  while (log(1).empty() && !deadline.passed()) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_THAT(log(1), AllOf(HasSubstr("threads 3 devices 4,5: serve --model /models/tiny --dtype auto --socket /")));
  EXPECT_THAT(log(1), HasSubstr("extra more"));
}

TEST_F(WorkerGroupTest, AKilledRankEndsTheGroupIsNamedAndTheGroupStartsAgain) {
  WorkerGroup& group = start(kServe);
  ASSERT_EQ(reports.next(), "ready: Fake");
  const auto pids = group.pids();
  ASSERT_EQ(pids.size(), 2u);
  ASSERT_EQ(::kill(pids[1], SIGKILL), 0);
  EXPECT_EQ(reports.next(), "lost: unavailable: model 'tiny': rank 1 of worker group 0 was killed by signal 9 (SIGKILL) while it served; "
                            "it is being started again: try again");
  ASSERT_EQ(reports.next(), "ready: Fake");
  EXPECT_NE(::kill(pids[0], 0), 0) << "the rank that was alive is gone as well";
  EXPECT_NE(group.pids(), pids);
}

TEST_F(WorkerGroupTest, AGroupThatIsToldToStartAnewDoesEvenIfItsProcessesAreStopped) {
  WorkerGroup& group = start(kServe);
  ASSERT_EQ(reports.next(), "ready: Fake");
  const auto pids = group.pids();
  ASSERT_EQ(::kill(pids[0], SIGSTOP), 0);
  group.restart(Error(Code::kUnavailable, "it says nothing"));
  EXPECT_EQ(reports.next(), "lost: unavailable: it says nothing; it is being started again: try again");
  ASSERT_EQ(reports.next(), "ready: Fake");
  EXPECT_NE(::kill(pids[0], 0), 0);
}

TEST_F(WorkerGroupTest, VariablesAreHiddenFromItsProcesses) {
  ::setenv("PENSTOCK_TEST_SECRET", "secret", 1);
  start("env\n" + std::string(kServe), [](WorkerGroupOptions& options) { options.hidden_variables = {"PENSTOCK_TEST_SECRET"}; });
  ASSERT_EQ(reports.next(), "ready: Fake");
  const Deadline deadline = Deadline::after(seconds(10));
  while (log(1).find("LOGLEVEL=INFO") == std::string::npos && !deadline.passed()) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_THAT(log(1), AllOf(HasSubstr("LOGLEVEL=INFO"), HasSubstr("LOCAL_WORLD_SIZE=2"), testing::Not(HasSubstr("PENSTOCK_TEST_SECRET"))));
  ::unsetenv("PENSTOCK_TEST_SECRET");
}

TEST_F(WorkerGroupTest, AFirstStartThatFailsIsNotRepeatedAndQuotesTheLog) {
  client->not_ready = Error(Code::kUnavailable, "not yet");
  WorkerGroup& group = start("if [ $RANK = 1 ]; then echo 'tensor lm_head is missing'; exit 3; fi\nexec sleep 1000\n");
  EXPECT_THAT(reports.next(), AllOf(HasSubstr("lost for good"), HasSubstr("rank 1"), HasSubstr("exit code 3"), HasSubstr("lm_head is missing")));
  EXPECT_EQ(group.state(), GroupState::kFailed);
  EXPECT_EQ(reports.next(), "ended");
  EXPECT_EQ(group.last_failure()->code(), Code::kUnavailable);
}

TEST_F(WorkerGroupTest, ExitCode2IsTheOperatorsMistake) {
  client->not_ready = Error(Code::kUnavailable, "not yet");
  WorkerGroup& group = start("exit 2\n");
  (void)reports.next();
  EXPECT_EQ(group.last_failure()->code(), Code::kInvalidArgument);
}

TEST_F(WorkerGroupTest, WhatTheWorkerSaysOfAFailedLoadIsTheCause) {
  client->not_ready = Error(Code::kDataLoss, "model.safetensors is truncated");
  WorkerGroup& group = start(kServe);
  EXPECT_THAT(reports.next(), HasSubstr("model.safetensors is truncated"));
  EXPECT_EQ(group.last_failure()->code(), Code::kDataLoss);
}

TEST_F(WorkerGroupTest, AModelThatIsNotReadyInTimeIsAFailure) {
  client->not_ready = Error(Code::kDeadlineExceeded, "not yet");
  start(kServe, [](WorkerGroupOptions& options) { options.startup_timeout = milliseconds(50); });
  EXPECT_THAT(reports.next(), AllOf(HasSubstr("0.05 s"), HasSubstr("startupTimeout")));
}

TEST_F(WorkerGroupTest, RestartsEndWhenTheRetryWindowIsOver) {
  WorkerGroup& group = start(kServe, [](WorkerGroupOptions& options) { options.max_retry = milliseconds(200); });
  ASSERT_EQ(reports.next(), "ready: Fake");
  write_script("exit 1\n");
  client->not_ready = Error(Code::kUnavailable, "not yet");
  ASSERT_EQ(::kill(group.pids()[0], SIGKILL), 0);
  std::string report = reports.next();
  EXPECT_THAT(report, HasSubstr("rank 0"));
  int losses = 1;
  for (; !report.starts_with("lost for good") && losses < 20; ++losses) report = reports.next();
  EXPECT_THAT(report, HasSubstr("it stays down"));
  EXPECT_GT(losses, 1) << "it was tried again before";
  EXPECT_EQ(group.state(), GroupState::kFailed);
}

TEST_F(WorkerGroupTest, StopDrainsAndEndsTheProcesses) {
  WorkerGroup& group = start(kServe);
  ASSERT_EQ(reports.next(), "ready: Fake");
  const auto pids = group.pids();
  group.stop(Deadline::after(seconds(5)));
  EXPECT_EQ(reports.next(), "stopping");
  EXPECT_EQ(reports.next(), "ended");
  EXPECT_TRUE(client->drained);
  EXPECT_EQ(group.state(), GroupState::kStopped);
  for (const pid_t pid : pids) EXPECT_NE(::kill(pid, 0), 0);
}

TEST_F(WorkerGroupTest, ADrainCanBeShortened) {
  WorkerGroup& group = start(kServe);
  ASSERT_EQ(reports.next(), "ready: Fake");
  reports.busy = true;
  group.request_stop(Deadline::never());
  group.request_stop(Deadline::after(milliseconds(50)));
  EXPECT_EQ(reports.next(), "ended");
  reports.busy = false;
}

TEST_F(WorkerGroupTest, AGroupThatStillLoadsStopsWithoutDraining) {
  client->not_ready = Error(Code::kDeadlineExceeded, "not yet");
  WorkerGroup& group = start(kServe);
  group.request_stop(Deadline::after(seconds(60)));
  EXPECT_EQ(reports.next(), "ended");
  EXPECT_FALSE(client->drained);
}

TEST_F(WorkerGroupTest, AProgramThatCannotBeRunIsNamed) {
  start(kServe, [](WorkerGroupOptions& options) { options.command[0] = "/no/such/program"; });
  EXPECT_THAT(reports.next(), AllOf(HasSubstr("lost for good"), HasSubstr("/no/such/program")));
}

}  // namespace
}  // namespace penstock::frontend
