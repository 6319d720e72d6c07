#include "frontend/job_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/fake_worker_client_test.h"
#include "frontend/job.h"

namespace penstock::frontend {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// A queue for two groups whose workers are played by hand.
class JobQueueTest : public testing::Test {
 protected:
  static JobQueueOptions options() {
    JobQueueOptions options;
    options.model = "tiny";
    options.max_waiting = 2;
    return options;
  }
  explicit JobQueueTest(const JobQueueOptions& options = JobQueueTest::options()) : queue(options) {
    queue.add_group(0);
    queue.add_group(1);
  }
  // Every call must end before the queue may go, as the workers' deaths end them in a server.
  ~JobQueueTest() override {
    queue.close(Error(Code::kUnavailable, "the test ends"));
    for (const auto& worker : workers) {
      for (const auto& call : worker->calls()) call->end(Error(Code::kCancelled, "the test ends"));
    }
  }

  struct Client {
    std::shared_ptr<RecordingObserver> observer = std::make_shared<RecordingObserver>();
    std::shared_ptr<Job> job;
    std::optional<Error> refused;
  };
  Client submit(const std::string& prompt = "hello", const JobOptions& job_options = {}) {
    Client client;
    text::GenerationRequest request;
    request.prompt = prompt;
    auto job = queue.submit(request, job_options, client.observer);
    if (job) client.job = *job;
    else client.refused = job.error();
    return client;
  }
  void ready(int group, int max_concurrent = 1) { queue.group_ready(group, workers[static_cast<size_t>(group)], max_concurrent); }
  std::shared_ptr<FakeCall> call(size_t group, size_t i) { return workers[group]->calls().at(i); }

  std::vector<std::shared_ptr<FakeWorkerClient>> workers = {std::make_shared<FakeWorkerClient>(), std::make_shared<FakeWorkerClient>()};
  JobQueue queue;
};

TEST_F(JobQueueTest, AJobWaitsForAGroupAndThenRuns) {
  Client client = submit("prompt");
  EXPECT_EQ(queue.num_waiting(), 1u);
  ready(0);
  ASSERT_EQ(workers[0]->calls().size(), 1u);
  EXPECT_EQ(call(0, 0)->prompt(), "prompt");
  EXPECT_TRUE(call(0, 0)->send("a"));
  EXPECT_TRUE(call(0, 0)->send("b"));
  call(0, 0)->end(std::nullopt);
  EXPECT_EQ(client.observer->outcome(), "ok");
  EXPECT_EQ(client.observer->text(), "ab");
  EXPECT_TRUE(queue.wait_idle(Deadline::after(seconds(5))));
}

TEST_F(JobQueueTest, JobsGoToTheGroupWithTheFewestRunningOnes) {
  ready(0, 4);
  ready(1, 4);
  for (int i = 0; i < 4; ++i) submit();
  EXPECT_EQ(workers[0]->calls().size(), 2u);
  EXPECT_EQ(workers[1]->calls().size(), 2u);
}

TEST_F(JobQueueTest, AFullQueueRefusesAndAnEndMakesRoom) {
  ready(0);
  submit();
  submit();
  submit();
  Client refused = submit();
  ASSERT_TRUE(refused.refused.has_value());
  EXPECT_EQ(refused.refused->code(), Code::kResourceExhausted);
  EXPECT_THAT(refused.refused->message(), HasSubstr("tiny"));
  call(0, 0)->end(std::nullopt);
  EXPECT_EQ(workers[0]->calls().size(), 2u) << "the next one runs";
  EXPECT_FALSE(submit().refused.has_value());
}

TEST_F(JobQueueTest, CancelReachesTheWorkersCall) {
  ready(0);
  Client client = submit();
  queue.cancel(*client.job);
  EXPECT_TRUE(call(0, 0)->cancelled);
  EXPECT_THAT(client.observer->outcome(), StartsWith("cancelled"));
  EXPECT_EQ(client.observer->times_done(), 1);
}

TEST_F(JobQueueTest, AJobCancelledWhileItWaitsNeverRuns) {
  Client client = submit();
  queue.cancel(*client.job);
  ready(0);
  EXPECT_TRUE(workers[0]->calls().empty());
  EXPECT_THAT(client.observer->outcome(), StartsWith("cancelled"));
}

TEST_F(JobQueueTest, AReaderThatWantsNoMoreCancelsItsCall) {
  ready(0);
  Client client = submit();
  client.observer->wants_more = false;
  EXPECT_FALSE(call(0, 0)->send("a"));
  EXPECT_TRUE(call(0, 0)->cancelled);
}

TEST_F(JobQueueTest, AHeadThatCannotBeEndsTheJob) {
  ready(0, 4);
  const std::vector<handler::AnswerHead> heads = {{-1, "", {}}, {100, "", {}}, {99999, "", {}}, {200, "", handler::Headers(300)}};
  for (const handler::AnswerHead& head : heads) {
    Client client = submit();
    EXPECT_FALSE(workers[0]->calls().back()->send("a", head));
    EXPECT_THAT(client.observer->outcome(), StartsWith("internal: the handler"));
    EXPECT_EQ(client.observer->text(), "");
  }
}

TEST_F(JobQueueTest, ALostGroupEndsItsJobsWithTheCauseAndLeavesTheOthers) {
  ready(0);
  ready(1);
  Client first = submit();
  Client second = submit();
  queue.group_lost(0, Error(Code::kUnavailable, "rank 1 was killed"), false);
  EXPECT_EQ(first.observer->outcome(), "unavailable: rank 1 was killed");
  call(1, 0)->end(std::nullopt);
  EXPECT_EQ(second.observer->outcome(), "ok");
}

// Waits for the cause of a broken client for 50 ms.
class BrokenClientTest : public JobQueueTest {
 protected:
  static JobQueueOptions options() {
    JobQueueOptions options = JobQueueTest::options();
    options.cause_timeout = milliseconds(50);
    return options;
  }
  BrokenClientTest() : JobQueueTest(options()) {}
};

TEST_F(BrokenClientTest, AGroupWhoseClientStaysBrokenIsToldOf) {
  ready(0);
  ready(1);
  EXPECT_TRUE(queue.broken_groups().empty());
  workers[1]->break_down(Error(Code::kInternal, "garbage"));
  EXPECT_TRUE(queue.broken_groups().empty()) << "its process may have ended, and the watcher says more";
  std::vector<std::pair<int, Error>> broken;
  for (const Deadline deadline = Deadline::after(seconds(10)); broken.empty() && !deadline.passed();) broken = queue.broken_groups();
  ASSERT_EQ(broken.size(), 1u);
  EXPECT_EQ(broken[0].first, 1);
  EXPECT_EQ(broken[0].second.message(), "garbage");
  queue.group_lost(1, Error(Code::kUnavailable, "started again"), false);
  EXPECT_TRUE(queue.broken_groups().empty());
}

TEST_F(JobQueueTest, ABrokenConnectionWaitsForTheCause) {
  ready(0);
  Client client = submit();
  call(0, 0)->end(Error(Code::kUnavailable, "connection reset"));
  EXPECT_EQ(client.observer->times_done(), 0) << "the watcher has not spoken yet";
  queue.group_lost(0, Error(Code::kUnavailable, "rank 1 was killed"), false);
  EXPECT_EQ(client.observer->outcome(), "unavailable: rank 1 was killed");
}

TEST_F(JobQueueTest, AJobOfALostGroupDoesNotEndTwiceAndTheNextOneRunsOnTheNewEpoch) {
  ready(0);
  Client lost = submit();
  queue.group_lost(0, Error(Code::kUnavailable, "rank 1 was killed"), false);
  Client next = submit();
  EXPECT_EQ(queue.num_waiting(), 1u) << "it waits for the restart";
  ready(0);
  call(0, 1)->end(std::nullopt);
  EXPECT_EQ(next.observer->outcome(), "ok");
  EXPECT_EQ(lost.observer->times_done(), 1);
}

TEST_F(JobQueueTest, WhenNoGroupWillComeBackWaitingAndNewJobsAreUnavailable) {
  Client waiting = submit();
  queue.group_lost(0, Error(Code::kUnavailable, "gone"), true);
  EXPECT_EQ(waiting.observer->times_done(), 0) << "the other group may still come";
  queue.group_lost(1, Error(Code::kUnavailable, "gone too"), true);
  EXPECT_EQ(waiting.observer->outcome(), "unavailable: gone too");
  EXPECT_EQ(submit().refused->code(), Code::kUnavailable);
}

TEST_F(JobQueueTest, AfterStopIntakeWhatRunsFinishes) {
  ready(0);
  Client running = submit();
  queue.stop_intake(Error(Code::kUnavailable, "shutting down"));
  EXPECT_EQ(submit().refused->message(), "shutting down");
  EXPECT_FALSE(queue.wait_idle(Deadline::after(milliseconds(1))));
  call(0, 0)->end(std::nullopt);
  EXPECT_TRUE(queue.wait_idle(Deadline::after(seconds(5))));
  EXPECT_EQ(running.observer->outcome(), "ok");
}

TEST_F(JobQueueTest, ALeavingGroupFinishesWhatItRunsAndTakesNothingNew) {
  ready(0);
  Client running = submit();
  ready(1);
  queue.leave_group(0);
  EXPECT_FALSE(queue.wait_group_idle(0, Deadline::after(milliseconds(1))));
  Client next = submit();
  EXPECT_EQ(workers[0]->calls().size(), 1u);
  EXPECT_EQ(workers[1]->calls().size(), 1u) << "the group that stays takes it";
  call(0, 0)->end(std::nullopt);
  EXPECT_TRUE(queue.wait_group_idle(0, Deadline::after(seconds(5))));
  EXPECT_EQ(running.observer->outcome(), "ok");
  queue.remove_group(0, Error(Code::kUnavailable, "scaled down"));
  EXPECT_EQ(next.observer->times_done(), 0);
}

TEST_F(JobQueueTest, AGroupThatEndedByItselfMayStillBeToldToLeave) {
  queue.remove_group(0, Error(Code::kUnavailable, "it ended"));
  queue.leave_group(0);
  queue.leave_group(1);
}

TEST_F(JobQueueTest, WhatARemovedGroupStillRunsEndsWithTheCause) {
  ready(0);
  Client running = submit();
  queue.leave_group(0);
  queue.remove_group(0, Error(Code::kUnavailable, "scaled down"));
  EXPECT_EQ(running.observer->outcome(), "unavailable: scaled down");
}

TEST_F(JobQueueTest, WithoutGroupsWaitingAndNewJobsAreToldSo) {
  Client waiting = submit();
  queue.leave_group(0);
  EXPECT_EQ(waiting.observer->times_done(), 0) << "group 1 may still come";
  queue.leave_group(1);
  EXPECT_THAT(waiting.observer->outcome(), HasSubstr("unavailable: model 'tiny' has no worker; scale it up"));
  EXPECT_EQ(submit().refused->code(), Code::kUnavailable);
  queue.add_group(2);
  EXPECT_FALSE(submit().refused);
}

class ShortTimeouts : public JobQueueTest {
 protected:
  static JobQueueOptions options() {
    JobQueueOptions options = JobQueueTest::options();
    options.response_timeout = milliseconds(30);
    options.cause_timeout = milliseconds(20);
    return options;
  }
  ShortTimeouts() : JobQueueTest(options()) {}
};

TEST_F(ShortTimeouts, ASilentWorkerCostsTheCallAndTheCallIsCancelled) {
  ready(0);
  Client client = submit();
  EXPECT_THAT(client.observer->outcome(), HasSubstr("sent nothing for 0.03 s (responseTimeout)"));
  EXPECT_TRUE(call(0, 0)->cancelled);
}

TEST_F(ShortTimeouts, WaitingForAWorkerHasTheSameLimit) {
  EXPECT_THAT(submit().observer->outcome(), HasSubstr("no worker was free for 0.03 s (responseTimeout)"));
}

TEST_F(JobQueueTest, ClientsTakeTurnsAndHigherPrioritiesGoFirst) {
  submit("first", {.client = "a"});
  submit("second", {.client = "a"});
  submit("third", {.client = "b"});  // the queue of two is full: the client with fewer gets the place
  ready(0);
  EXPECT_EQ(call(0, 0)->prompt(), "first");
  submit("urgent", {.priority = Priority::kHigh, .client = "a"});
  call(0, 0)->end(std::nullopt);
  EXPECT_EQ(call(0, 1)->prompt(), "urgent");
  call(0, 1)->end(std::nullopt);
  EXPECT_EQ(call(0, 2)->prompt(), "third");
}

TEST_F(JobQueueTest, AJobThatMakesRoomForAnotherIsToldSo) {
  submit("first", {.client = "a"});
  const Client second = submit("second", {.client = "a"});
  EXPECT_FALSE(submit("third", {.client = "b"}).refused);
  EXPECT_THAT(second.observer->outcome(), StartsWith("resource exhausted: model 'tiny': the queue is full (jobQueueSize 2), and the request made room"));
  queue.cancel(*second.job);
  EXPECT_EQ(second.observer->times_done(), 1);
  EXPECT_EQ(queue.num_waiting(), 2u);
}

TEST_F(JobQueueTest, TheCallersDeadlineEndsAJobThatWaitsAndOneThatRuns) {
  EXPECT_EQ(submit("late", {.deadline = Deadline::after(milliseconds(-1))}).refused->code(), Code::kDeadlineExceeded);
  const Client waiting = submit("waits", {.deadline = Deadline::after(milliseconds(20))});
  EXPECT_EQ(waiting.observer->outcome(), "deadline exceeded: model 'tiny': the call's deadline has passed while it waited for a worker");
  ready(0);
  EXPECT_TRUE(workers[0]->calls().empty());
  const Client running = submit("runs", {.deadline = Deadline::after(milliseconds(200))});
  EXPECT_EQ(running.observer->outcome(), "deadline exceeded: model 'tiny': the call's deadline has passed while it ran");
  EXPECT_TRUE(call(0, 0)->cancelled);
}

class SilentWorker : public JobQueueTest {
 protected:
  static JobQueueOptions options() {
    JobQueueOptions options = JobQueueTest::options();
    options.response_timeout = milliseconds(300);
    return options;
  }
  SilentWorker() : JobQueueTest(options()) { ready(0); }
};

TEST_F(SilentWorker, OneThatLeavesTwoRequestsInARowWithoutAWordIsStuck) {
  EXPECT_THAT(submit().observer->outcome(), HasSubstr("responseTimeout"));
  EXPECT_THAT(queue.take_stuck(), testing::IsEmpty()) << "one slow answer is none";
  EXPECT_THAT(submit().observer->outcome(), HasSubstr("responseTimeout"));
  EXPECT_THAT(queue.take_stuck(), testing::ElementsAre(0));
  EXPECT_THAT(queue.take_stuck(), testing::IsEmpty()) << "it is told once";
}

TEST_F(SilentWorker, AWordInBetweenBeginsAnew) {
  EXPECT_THAT(submit().observer->outcome(), HasSubstr("responseTimeout"));
  const Client answered = submit();
  call(0, 1)->end(std::nullopt);
  EXPECT_EQ(answered.observer->outcome(), "ok");
  EXPECT_THAT(submit().observer->outcome(), HasSubstr("responseTimeout"));
  EXPECT_THAT(queue.take_stuck(), testing::IsEmpty());
}

class ClientTimeout : public JobQueueTest {
 protected:
  static JobQueueOptions limited() {
    JobQueueOptions options = JobQueueTest::options();
    options.client_timeout = milliseconds(60);
    return options;
  }
  ClientTimeout() : JobQueueTest(limited()) {}
};

TEST_F(ClientTimeout, EndsAJobThatStillSendsAndTellsTheClient) {
  ready(0);
  Client client = submit();
  const Deadline deadline = Deadline::after(seconds(10));
  while (!call(0, 0)->cancelled && !deadline.passed()) (void)call(0, 0)->send("x");
  EXPECT_THAT(client.observer->outcome(), HasSubstr("deadline exceeded: model 'tiny': the request has not ended within 60 ms (clientTimeoutInMills)"));
}

class JobTickets : public JobQueueTest {
 protected:
  static JobQueueOptions ticketed() {
    JobQueueOptions options = JobQueueTest::options();
    options.needs_free_worker = true;
    return options;
  }
  JobTickets() : JobQueueTest(ticketed()) {}
};

TEST_F(JobTickets, AJobThatNoWorkerCanTakeAtOnceIsRefused) {
  EXPECT_EQ(submit().refused->code(), Code::kResourceExhausted) << "no group is ready";
  ready(0, 2);
  EXPECT_FALSE(submit().refused);
  EXPECT_FALSE(submit().refused);
  const Client third = submit();
  ASSERT_TRUE(third.refused);
  EXPECT_THAT(third.refused->message(), HasSubstr("useJobTicket"));
  call(0, 0)->end(std::nullopt);
  EXPECT_FALSE(submit().refused);
}

TEST_F(ShortTimeouts, WithoutAWordFromTheWatcherTheErrorStandsAsItIs) {
  ready(0);
  Client client = submit();
  call(0, 0)->end(Error(Code::kInternal, "the engine failed"));
  EXPECT_EQ(client.observer->outcome(), "internal: the engine failed");
}

}  // namespace
}  // namespace penstock::frontend
