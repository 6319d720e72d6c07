// Generations whose worker is lost, with JobQueueOptions::move_lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "frontend/fake_worker_client_test.h"
#include "frontend/job.h"
#include "frontend/job_queue.h"

namespace penstock::frontend {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

const Error kCut(Code::kUnavailable, "connection reset");
const Error kKilled(Code::kUnavailable, "rank 1 was killed by SIGKILL");

class JobQueueLossesTest : public testing::Test {
 protected:
  static JobQueueOptions options() {
    JobQueueOptions options;
    options.model = "tiny";
    options.max_waiting = 2;
    options.move_lost = true;
    return options;
  }
  JobQueueLossesTest() : queue(options()) {
    queue.add_group(0);
    queue.add_group(1);
  }
  // Every call must end before the queue may go, as the workers' deaths end them in a server.
  ~JobQueueLossesTest() override {
    queue.close(Error(Code::kUnavailable, "the test ends"));
    for (const auto& worker : workers) {
      for (const auto& call : worker->calls()) call->end(Error(Code::kCancelled, "the test ends"));
    }
  }
  std::shared_ptr<RecordingObserver> submit(const std::string& prompt = "hello", const JobOptions& job_options = {}) {
    const auto observer = std::make_shared<RecordingObserver>();
    text::GenerationRequest request;
    request.prompt = prompt;
    last_job = queue.submit(request, job_options, observer).value();
    return observer;
  }
  // A new worker, of which group() is the number.
  std::shared_ptr<FakeWorkerClient> start(int group, int max_concurrent = 4) {
    workers.push_back(std::make_shared<FakeWorkerClient>());
    queue.group_ready(group, workers.back(), max_concurrent, 2);
    return workers.back();
  }

  std::vector<std::shared_ptr<FakeWorkerClient>> workers;
  std::shared_ptr<Job> last_job;
  JobQueue queue;
};

TEST_F(JobQueueLossesTest, AGenerationGoesOnAfterItsTokensWithTheGroupThatComesBack) {
  const auto first = start(0);
  const auto client = submit();
  const auto call = first->calls().at(0);
  EXPECT_TRUE(call->send_token(5));
  EXPECT_TRUE(call->send_token(6));
  call->end(kCut);
  queue.group_lost(0, kKilled, /*for_good=*/false);
  EXPECT_EQ(client->times_done(), 0);
  EXPECT_EQ(queue.num_waiting(), 1u);

  const auto second = start(0);
  ASSERT_EQ(second->calls().size(), 1u);
  const auto again = second->calls()[0];
  EXPECT_EQ(again->prompt(), "hello");
  EXPECT_THAT(again->generated(), ElementsAre(5, 6));
  EXPECT_TRUE(again->send_token(7));
  again->end(std::nullopt);
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_EQ(client->text(), "5 6 7 ");
  EXPECT_TRUE(queue.wait_idle(Deadline::after(seconds(5))));
}

TEST_F(JobQueueLossesTest, WhenTheLossIsKnownFirstItWaitsUntilTheCallHasEnded) {
  const auto first = start(0);
  const auto client = submit();
  EXPECT_TRUE(first->calls().at(0)->send_token(5));
  queue.group_lost(0, kKilled, /*for_good=*/false);
  const auto second = start(1);
  EXPECT_TRUE(second->calls().empty()) << "events of the old call may still be under way";
  EXPECT_TRUE(first->calls()[0]->send_token(6)) << "and they count";
  first->calls()[0]->end(kCut);
  ASSERT_EQ(second->calls().size(), 1u);
  EXPECT_THAT(second->calls()[0]->generated(), ElementsAre(5, 6));
  second->calls()[0]->end(std::nullopt);
  EXPECT_EQ(client->outcome(), "ok");
}

TEST_F(JobQueueLossesTest, ItGoesBeforeThoseThatWaitEvenIntoAFullLine) {
  const auto first = start(0, 1);
  const auto client = submit("first");
  submit("second");
  submit("third");
  first->calls().at(0)->end(kCut);
  queue.group_lost(0, kKilled, /*for_good=*/false);
  EXPECT_EQ(queue.num_waiting(), 3u);
  EXPECT_EQ(start(0, 1)->calls().at(0)->prompt(), "first");
}

TEST_F(JobQueueLossesTest, ARequestOfWhichWorkersDieEndsWithTheSecond) {
  const auto first = start(0);
  const auto poison = submit("poison"), other = submit("other");
  EXPECT_TRUE(first->calls().at(1)->send_token(5));
  for (const auto& call : first->calls()) call->end(kCut);
  queue.group_lost(0, kKilled, /*for_good=*/false);
  const auto second = start(0);
  ASSERT_EQ(second->calls().size(), 2u);
  for (const auto& call : second->calls()) call->end(kCut);
  queue.group_lost(0, kKilled, /*for_good=*/false);
  EXPECT_THAT(poison->outcome(), HasSubstr("rank 1"));
  const auto third = start(0);
  ASSERT_EQ(third->calls().size(), 1u);
  EXPECT_EQ(third->calls()[0]->prompt(), "other");
  third->calls()[0]->end(std::nullopt);
  EXPECT_EQ(other->outcome(), "ok");
}

TEST_F(JobQueueLossesTest, ItMovesThreeTimesAtMost) {
  const auto client = submit();
  for (int token = 0; token < 4; ++token) {
    const auto worker = start(0);
    ASSERT_EQ(worker->calls().size(), 1u) << token;
    EXPECT_EQ(worker->calls()[0]->generated().size(), static_cast<size_t>(token));
    EXPECT_TRUE(worker->calls()[0]->send_token(token));
    worker->calls()[0]->end(kCut);
    queue.group_lost(0, kKilled, /*for_good=*/false);
  }
  EXPECT_THAT(client->outcome(), HasSubstr("rank 1"));
}

TEST_F(JobQueueLossesTest, WithoutAnyGroupLeftItEnds) {
  const auto first = start(0);
  const auto client = submit();
  queue.group_lost(1, kKilled, /*for_good=*/true);
  first->calls().at(0)->end(kCut);
  queue.group_lost(0, kKilled, /*for_good=*/true);
  EXPECT_THAT(client->outcome(), HasSubstr("rank 1"));
}

TEST_F(JobQueueLossesTest, ACancelledOneDoesNotComeBack) {
  const auto first = start(0);
  const auto client = submit();
  queue.group_lost(0, kKilled, /*for_good=*/false);
  queue.cancel(*last_job);
  EXPECT_THAT(client->outcome(), StartsWith("cancelled"));
  EXPECT_TRUE(start(0)->calls().empty());
}

TEST_F(JobQueueLossesTest, OneThatHasSaidItsLastWordIsComplete) {
  const auto first = start(0);
  const auto client = submit();
  EXPECT_TRUE(first->calls().at(0)->send_last(5));
  first->calls()[0]->end(kCut);
  EXPECT_EQ(client->outcome(), "ok");
}

TEST_F(JobQueueLossesTest, RequestsOfASequenceEnd) {
  const auto first = start(0);
  JobOptions options;
  options.sequence = SequenceMark{"s", false, ""};
  const auto client = submit("x", options);
  first->calls().at(0)->end(kCut);
  queue.group_lost(0, kKilled, /*for_good=*/false);
  EXPECT_THAT(client->outcome(), HasSubstr("rank 1"));
}

TEST_F(JobQueueLossesTest, ARefusalOfTheWorkerIsNoLoss) {
  const auto first = start(0);
  const auto client = submit();
  first->calls().at(0)->end(Error(Code::kInvalidArgument, "prompt: is too long"));
  EXPECT_THAT(client->outcome(), HasSubstr("too long"));
}

// Workers that answer by themselves: a thread sends each call its next token, 0 ... kWords - 1, and ends the calls of those that were killed, as a
// connection does: after its last event.
class PlayedWorkers {
 public:
  static constexpr int kWords = 40;
  PlayedWorkers() : thread_([this] { play(); }) {}
  ~PlayedWorkers() {
    stop_ = true;
    thread_.join();
  }
  void add(std::shared_ptr<FakeWorkerClient> worker) {
    MutexLock lock(mutex_);
    alive_[std::move(worker)] = true;
  }
  void kill(const std::shared_ptr<FakeWorkerClient>& worker) {
    MutexLock lock(mutex_);
    alive_[worker] = false;
  }

 private:
  void play() {
    std::map<std::shared_ptr<FakeCall>, int> sent;  // tokens; -1: it has ended
    while (!stop_) {
      std::map<std::shared_ptr<FakeWorkerClient>, bool> workers;
      {
        MutexLock lock(mutex_);
        workers = alive_;
      }
      for (const auto& [worker, alive] : workers) {
        for (const auto& call : worker->calls()) step(*call, alive, sent[call]);
      }
    }
  }
  static void step(FakeCall& call, bool alive, int& sent) {
    if (sent < 0) return;
    const int next = static_cast<int>(call.generated().size()) + sent;
    if (!alive) {
      call.end(kCut);
      sent = -1;
    } else if (next < kWords) {
      (void)call.send_token(next);
      ++sent;
    } else {
      call.end(std::nullopt);
      sent = -1;
    }
  }

  Mutex mutex_;
  std::map<std::shared_ptr<FakeWorkerClient>, bool> alive_ GUARDED_BY(mutex_);
  std::atomic<bool> stop_{false};
  std::thread thread_;  // last: it uses the members above
};

TEST_F(JobQueueLossesTest, TextsAreWholeInWhicheverOrderLossesAndEndsOfCallsAreNoticed) {
  std::string whole;
  for (int word = 0; word < PlayedWorkers::kWords; ++word) whole += std::to_string(word) + " ";
  PlayedWorkers played;
  std::shared_ptr<FakeWorkerClient> by_group[] = {start(0), start(1)};
  for (const auto& worker : by_group) played.add(worker);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::shared_ptr<RecordingObserver>> clients;
    for (int i = 0; i < 6; ++i) clients.push_back(submit());
    const int group = round % 2;
    const bool call_ends_first = round % 4 < 2;
    std::this_thread::sleep_for(std::chrono::microseconds(40 * (round % 5)));
    if (call_ends_first) played.kill(by_group[group]);
    if (call_ends_first) std::this_thread::sleep_for(std::chrono::microseconds(100));
    queue.group_lost(group, kKilled, /*for_good=*/false);
    played.kill(by_group[group]);
    by_group[group] = start(group);
    played.add(by_group[group]);
    for (const auto& client : clients) {
      EXPECT_EQ(client->outcome(), "ok") << "round " << round;
      EXPECT_EQ(client->text(), whole);
    }
  }
}

}  // namespace
}  // namespace penstock::frontend
