// What a job queue tells metrics and traces.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/mutex.h"
#include "frontend/fake_worker_client_test.h"
#include "frontend/job.h"
#include "frontend/serving_metrics.h"

namespace penstock::frontend {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class JobReportTest : public testing::Test {
 protected:
  JobReportTest() {
    JobQueueOptions options;
    options.model = "m";
    options.max_waiting = 1;
    options.reporter = {"m", "2.0", metrics.meter("m", "2.0"), &spans};
    queue = std::make_unique<JobQueue>(options);
    queue->add_group(0);
  }
  ~JobReportTest() override {
    queue->close(Error(Code::kUnavailable, "the test ends"));
    for (const auto& call : worker->calls()) call->end(Error(Code::kCancelled, "the test ends"));
    queue.reset();
  }
  std::shared_ptr<RecordingObserver> submit(JobOptions options = {}) {
    auto observer = std::make_shared<RecordingObserver>();
    (void)queue->submit(text::GenerationRequest(), std::move(options), observer);
    return observer;
  }
  [[nodiscard]] std::string count(const std::string& name, const std::string& protocol = "http") const {
    const std::string text = metrics.render({name});
    const std::string line = name + "{model_name=\"m\",model_version=\"2.0\",protocol=\"" + protocol + "\",";
    const size_t at = text.find(line);
    if (at == std::string::npos) return "none";
    const size_t value = text.find(' ', at);
    return text.substr(value + 1, text.find('\n', value) - value - 1);
  }

  ServingMetrics metrics{"box"};
  Mutex mutex;
  std::vector<json> sent GUARDED_BY(mutex);
  SpanExporter spans{{.hostname = "box", .interval = milliseconds(1)}, [this](const std::string& body, Deadline) {
                       MutexLock lock(mutex);
                       const json parsed = json::parse(body);
                       for (const json& span : parsed["resourceSpans"][0]["scopeSpans"][0]["spans"]) sent.push_back(span);
                       return std::optional<Error>();
                     }};
  std::shared_ptr<FakeWorkerClient> worker = std::make_shared<FakeWorkerClient>();
  std::unique_ptr<JobQueue> queue;
};

TEST_F(JobReportTest, EachPartOfAJobsLifeIsObservedOnce) {
  const auto observer = submit({.protocol = Protocol::kHttp});
  EXPECT_EQ(count("penstock_queue_seconds_count"), "0.0");
  queue->group_ready(0, worker, 1);
  EXPECT_EQ(count("penstock_queue_seconds_count"), "1.0");
  EXPECT_EQ(count("penstock_first_message_seconds_count"), "0.0");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(worker->calls()[0]->send("x"));
  EXPECT_EQ(count("penstock_first_message_seconds_count"), "1.0");
  EXPECT_EQ(count("penstock_between_messages_seconds_count"), "2.0");
  EXPECT_EQ(count("penstock_request_seconds_count"), "0.0");
  worker->calls()[0]->end(std::nullopt);
  EXPECT_EQ(observer->outcome(), "ok");
  EXPECT_EQ(count("penstock_request_seconds_count"), "1.0");
  EXPECT_EQ(count("penstock_requests_total"), "1.0");
  EXPECT_EQ(count("penstock_request_seconds_count", "grpc"), "0.0") << "the other protocol has nothing of it";
}

TEST_F(JobReportTest, RefusedAndCancelledJobsCountByTheirCodes) {
  (void)submit({.protocol = Protocol::kHttp});  // waits
  (void)submit({.protocol = Protocol::kHttp});  // one too many
  const std::string text = metrics.render({"penstock_requests_total"});
  EXPECT_THAT(text, HasSubstr("code=\"RESOURCE_EXHAUSTED\",} 1.0\n"));
  EXPECT_THAT(metrics.render({"ts_inference_requests_total"}), HasSubstr("} 2.0\n"));
  queue->close(Error(Code::kCancelled, "over"));
  EXPECT_THAT(metrics.render({"penstock_requests_total"}), HasSubstr("code=\"CANCELLED\",} 1.0\n"));
}

TEST_F(JobReportTest, AJobOfARecordedRequestIsTwoSpansBelowIt) {
  JobOptions options;
  options.trace = begin_trace(std::nullopt, /*recording=*/true);
  const std::string request = to_hex(options.trace.context->span.data(), 8);
  queue->group_ready(0, worker, 1);
  (void)submit(options);
  worker->calls()[0]->end(Error(Code::kInternal, "broken"));
  const Deadline deadline = Deadline::after(seconds(20));
  while (spans.sent() < 2 && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
  MutexLock lock(mutex);
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0]["name"], "queue");
  EXPECT_EQ(sent[1]["name"], "worker");
  for (const json& span : sent) EXPECT_EQ(span["parentSpanId"], request);
  EXPECT_TRUE(sent[0]["status"].empty());
  EXPECT_THAT(sent[1]["status"]["message"].get<std::string>(), HasSubstr("broken"));
}

TEST_F(JobReportTest, ARequestThatIsNotRecordedHasNoSpans) {
  queue->group_ready(0, worker, 1);
  JobOptions options;
  options.trace = begin_trace(parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), /*recording=*/false);
  (void)submit(options);
  worker->calls()[0]->end(std::nullopt);
  Span marker;
  marker.name = "marker";
  spans.add(marker);
  const Deadline deadline = Deadline::after(seconds(20));
  while (spans.sent() == 0 && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
  MutexLock lock(mutex);
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent[0]["name"], "marker") << "nothing was sent before it";
}

}  // namespace
}  // namespace penstock::frontend
