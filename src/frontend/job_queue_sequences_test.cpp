// Sequences in a job queue: order, place, limits (what sequence_table_test.cpp knows of them), and what their handlers are told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/fake_worker_client_test.h"
#include "frontend/job.h"
#include "frontend/job_queue.h"

namespace penstock::frontend {
namespace {

using testing::HasSubstr;

class JobQueueSequencesTest : public testing::Test {
 protected:
  JobQueueSequencesTest() : queue(options()) {
    for (int group : {0, 1}) queue.add_group(group);
  }
  ~JobQueueSequencesTest() override {
    queue.close(Error(Code::kUnavailable, "the test ends"));
    for (const auto& worker : workers) {
      for (const auto& call : worker->calls()) call->end(Error(Code::kCancelled, "the test ends"));
    }
  }
  static JobQueueOptions options() {
    JobQueueOptions options;
    options.model = "tiny";
    options.sequences.max_sequences = 2;
    options.sequences.max_idle = seconds(100);
    return options;
  }
  Result<std::shared_ptr<Job>> submit(const std::string& id, const std::string& request_id, bool last = false) {
    JobOptions job_options;
    job_options.sequence = JobOptions::Sequence{id, last, "x-start"};
    return queue.submit(handler::Request{request_id, {}, {}}, std::move(job_options), std::make_shared<RecordingObserver>());
  }
  void ready(int group) { queue.group_ready(group, workers[static_cast<size_t>(group)], 4); }
  [[nodiscard]] const handler::Request& request(size_t group, size_t i) const {
    return std::get<handler::Request>(workers[group]->calls().at(i)->payload);
  }
  // The requests that a group was given, in their order.
  [[nodiscard]] std::string given(size_t group) const {
    std::string all;
    for (const auto& call : workers[group]->calls()) all += std::get<handler::Request>(call->payload).id + " ";
    return all;
  }
  void end(size_t group, size_t i) { workers[group]->calls().at(i)->end(std::nullopt); }

  std::vector<std::shared_ptr<FakeWorkerClient>> workers = {std::make_shared<FakeWorkerClient>(), std::make_shared<FakeWorkerClient>()};
  JobQueue queue;
};

TEST_F(JobQueueSequencesTest, RequestsOfOneSequenceRunOneAfterAnotherAndOthersPassThem) {
  ready(0);
  for (const char* name : {"a1", "a2", "a3"}) EXPECT_TRUE(submit("a", name));
  EXPECT_TRUE(submit("b", "b1"));
  EXPECT_EQ(given(0), "a1 b1 ");
  end(0, 0);
  EXPECT_EQ(given(0), "a1 b1 a2 ");
  end(0, 2);
  EXPECT_EQ(given(0), "a1 b1 a2 a3 ");
}

TEST_F(JobQueueSequencesTest, ACancelledRequestMakesWayForTheNext) {
  ready(0);
  const auto running = submit("a", "a1").value();
  const auto waiting = submit("a", "a2").value();
  EXPECT_TRUE(submit("a", "a3"));
  queue.cancel(*waiting);
  EXPECT_EQ(given(0), "a1 ");
  queue.cancel(*running);
  EXPECT_EQ(given(0), "a1 a3 ");
}

TEST_F(JobQueueSequencesTest, ASequenceStaysOnItsGroupUntilThatIsLost) {
  ready(0);
  EXPECT_TRUE(submit("a", "a1"));
  ready(1);
  EXPECT_TRUE(submit("b", "b1"));
  EXPECT_EQ(given(1), "b1 ");
  end(1, 0);
  end(0, 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(submit("b", "b"));
    end(1, static_cast<size_t>(i) + 1);
  }
  EXPECT_EQ(given(0), "a1 ");
  queue.group_lost(1, Error(Code::kUnavailable, "rank 0 died"), false);
  EXPECT_TRUE(submit("b", "b5"));
  EXPECT_EQ(given(0), "a1 b5 ");
}

TEST_F(JobQueueSequencesTest, AGroupThatLeavesIsGivenNothingMoreOfItsSequences) {
  ready(0);
  EXPECT_TRUE(submit("a", "a1"));
  ready(1);
  end(0, 0);
  queue.leave_group(0);
  EXPECT_TRUE(submit("a", "a2"));
  EXPECT_EQ(given(1), "a2 ");
}

TEST_F(JobQueueSequencesTest, TheFirstRequestTellsTheHandlerSo) {
  ready(0);
  EXPECT_TRUE(submit("a", "a1"));
  end(0, 0);
  EXPECT_TRUE(submit("a", "a2", /*last=*/true));
  end(0, 1);
  EXPECT_TRUE(submit("a", "a3")) << "a new sequence of the same name";
  ASSERT_TRUE(handler::find_header(request(0, 0).headers, "X-Start"));
  EXPECT_EQ(*handler::find_header(request(0, 0).headers, "x-start"), "true");
  EXPECT_FALSE(handler::find_header(request(0, 1).headers, "x-start"));
  EXPECT_TRUE(handler::find_header(request(0, 2).headers, "x-start"));
}

TEST_F(JobQueueSequencesTest, OneSequenceTooManyIsRefusedWithTheModelsName) {
  EXPECT_TRUE(submit("a", "a1"));
  EXPECT_TRUE(submit("b", "b1"));
  const auto refused = submit("c", "c1");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kResourceExhausted);
  EXPECT_THAT(refused.error().message(), HasSubstr("model 'tiny': 2 sequences are open"));
  EXPECT_EQ(queue.num_waiting(), 2u);
}

}  // namespace
}  // namespace penstock::frontend
