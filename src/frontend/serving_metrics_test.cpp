#include "frontend/serving_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"
#include "frontend/worker_client.h"

namespace penstock::frontend {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

TEST(ServingMetrics, EveryNameOfTorchServeIsThereWithItsHelp) {
  const ServingMetrics metrics("box");
  const std::string text = metrics.render({});
  for (const char* counter : {"Requests2XX", "Requests4XX", "Requests5XX", "ts_inference_requests_total", "ts_inference_latency_microseconds",
                              "ts_queue_latency_microseconds"}) {
    EXPECT_THAT(text, HasSubstr(std::string("# TYPE ") + counter + " counter\n"));
    EXPECT_THAT(text, HasSubstr(std::string("# HELP ") + counter + " Torchserve prometheus counter metric with unit: "));
  }
  for (const char* gauge : {"QueueTime", "WorkerThreadTime", "WorkerLoadTime", "CPUUtilization", "MemoryUsed", "MemoryAvailable", "MemoryUtilization",
                            "DiskUsage", "DiskUtilization", "DiskAvailable", "GPUMemoryUtilization", "GPUMemoryUsed", "GPUUtilization",
                            "HandlerTime", "PredictionTime"}) {
    EXPECT_THAT(text, HasSubstr(std::string("# TYPE ") + gauge + " gauge\n"));
    EXPECT_THAT(text, HasSubstr(std::string("# HELP ") + gauge + " Torchserve prometheus gauge metric with unit: "));
  }
}

TEST(ServingMetrics, AnswersCountByTheirClass) {
  ServingMetrics metrics("box");
  for (const int status : {200, 202, 302, 404, 429, 500, 503, 504}) metrics.answered(status);
  EXPECT_THAT(metrics.render({"Requests2XX"}), HasSubstr("Requests2XX{Level=\"Host\",Hostname=\"box\",} 3.0\n"));
  EXPECT_THAT(metrics.render({"Requests4XX"}), HasSubstr("Requests4XX{Level=\"Host\",Hostname=\"box\",} 2.0\n"));
  EXPECT_THAT(metrics.render({"Requests5XX"}), HasSubstr("Requests5XX{Level=\"Host\",Hostname=\"box\",} 3.0\n"));
}

TEST(ServingMetrics, ARequestIsCountedUnderBothKindsOfNames) {
  ServingMetrics metrics("box");
  const auto meter = metrics.meter("m", "2.0");
  meter->submitted();
  meter->started(Protocol::kGrpc, milliseconds(2), microseconds(500));
  meter->first_message(Protocol::kGrpc, milliseconds(3));
  meter->message(Protocol::kGrpc, milliseconds(4));
  meter->ended(Protocol::kGrpc, milliseconds(10), milliseconds(8), std::nullopt, "id");
  const std::string text = metrics.render({});
  for (const char* line : {
           "ts_inference_requests_total{model_name=\"m\",model_version=\"2.0\",hostname=\"box\",} 1.0",
           "ts_inference_latency_microseconds{model_name=\"m\",model_version=\"2.0\",hostname=\"box\",} 10000.0",
           "ts_queue_latency_microseconds{model_name=\"m\",model_version=\"2.0\",hostname=\"box\",} 2000.0",
           "QueueTime{Level=\"Host\",Hostname=\"box\",} 2.0",
           "WorkerThreadTime{Level=\"Host\",Hostname=\"box\",} 0.5",
           "PredictionTime{ModelName=\"m\",Level=\"Model\",Hostname=\"box\",} 8.0",
           "HandlerTime{ModelName=\"m\",Level=\"Model\",Hostname=\"box\",} 8.0",
           "penstock_queue_seconds_bucket{model_name=\"m\",model_version=\"2.0\",protocol=\"grpc\",le=\"0.001\",} 0.0",
           "penstock_queue_seconds_bucket{model_name=\"m\",model_version=\"2.0\",protocol=\"grpc\",le=\"0.0025\",} 1.0",
           "penstock_first_message_seconds_sum{model_name=\"m\",model_version=\"2.0\",protocol=\"grpc\",} 0.003",
           "penstock_between_messages_seconds_sum{model_name=\"m\",model_version=\"2.0\",protocol=\"grpc\",} 0.004",
           "penstock_request_seconds_count{model_name=\"m\",model_version=\"2.0\",protocol=\"grpc\",} 1.0",
           "penstock_request_seconds_count{model_name=\"m\",model_version=\"2.0\",protocol=\"http\",} 0.0",
           "penstock_requests_total{model_name=\"m\",model_version=\"2.0\",protocol=\"grpc\",code=\"OK\",} 1.0",
       }) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
}

TEST(ServingMetrics, GenerationsAreCountedUnderVllmsNamesInItsBucketsAndOtherModelsAreNot) {
  ServingMetrics metrics("box");
  const auto meter = metrics.meter("m", "2.0");
  metrics.meter("bytes", "1.0")->first_message(Protocol::kGrpc, milliseconds(3));
  EXPECT_THAT(metrics.render({}), Not(HasSubstr("vllm:prompt_tokens_total{")));
  meter->token(/*first=*/true, milliseconds(30));
  meter->token(/*first=*/false, milliseconds(60));
  meter->generated({"length", 7, 2, 0}, milliseconds(900));
  meter->generated({"stop", 3, 9, 0}, milliseconds(900));
  const std::string text = metrics.render({});
  for (const char* line : {
           "vllm:prompt_tokens_total{model_name=\"m\",model_version=\"2.0\",} 10.0",
           "vllm:generation_tokens_total{model_name=\"m\",model_version=\"2.0\",} 11.0",
           "vllm:request_success_total{model_name=\"m\",model_version=\"2.0\",finished_reason=\"length\",} 1.0",
           "vllm:request_success_total{model_name=\"m\",model_version=\"2.0\",finished_reason=\"stop\",} 1.0",
           "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",model_version=\"2.0\",le=\"0.02\",} 0.0",
           "vllm:time_to_first_token_seconds_bucket{model_name=\"m\",model_version=\"2.0\",le=\"0.04\",} 1.0",
           "vllm:inter_token_latency_seconds_bucket{model_name=\"m\",model_version=\"2.0\",le=\"0.075\",} 1.0",
           "vllm:e2e_request_latency_seconds_bucket{model_name=\"m\",model_version=\"2.0\",le=\"0.8\",} 0.0",
           "vllm:e2e_request_latency_seconds_bucket{model_name=\"m\",model_version=\"2.0\",le=\"1.0\",} 2.0",
           "vllm:request_generation_tokens_sum{model_name=\"m\",model_version=\"2.0\",} 11.0",
       }) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
}

TEST(ServingMetrics, FailuresCountByTheirCodeAndNoWorkerTimeIsMadeUp) {
  ServingMetrics metrics("box");
  const auto meter = metrics.meter("m", "1.0");
  meter->ended(Protocol::kHttp, milliseconds(1), Clock::duration::zero(), Error(Code::kResourceExhausted, "full"), "id");
  const std::string text = metrics.render({});
  EXPECT_THAT(text, HasSubstr("penstock_requests_total{model_name=\"m\",model_version=\"1.0\",protocol=\"http\",code=\"RESOURCE_EXHAUSTED\",} 1.0\n"));
  EXPECT_THAT(text, HasSubstr("PredictionTime{ModelName=\"m\",Level=\"Model\",Hostname=\"box\",} 0.0\n"));
}

TEST(ServingMetrics, AVersionThatComesBackGoesOnCounting) {
  ServingMetrics metrics("box");
  metrics.meter("m", "1.0")->submitted();
  metrics.meter("m", "1.0")->submitted();
  EXPECT_THAT(metrics.render({"ts_inference_requests_total"}), HasSubstr("} 2.0\n"));
}

TEST(ServingMetrics, LegacyModeShowsThreeCountersOnly) {
  ServingMetrics metrics("box");
  metrics.meter("m", "1.0")->submitted();
  EXPECT_THAT(metrics.render({}, true), HasSubstr("ts_inference_requests_total{"));
  EXPECT_THAT(metrics.render({}, true), Not(HasSubstr("QueueTime")));
  EXPECT_THAT(metrics.render({"ts_queue_latency_microseconds", "QueueTime"}, true), Not(HasSubstr("QueueTime")));
  EXPECT_EQ(metrics.render({"QueueTime"}, true), "");
}

TEST(ServingMetrics, FiguresBecomeLinesInTorchServesForm) {
  const TempDir folder;
  {
    LogFiles files(folder.path(), folder.path());
    const MetricLines lines(files, "box");
    ServingMetrics metrics("box");
    metrics.write_lines(lines);
    const auto meter = metrics.meter("m", "2.0");
    meter->submitted();
    meter->started(Protocol::kHttp, milliseconds(2), milliseconds(1));
    meter->ended(Protocol::kHttp, milliseconds(10), milliseconds(8), std::nullopt, "id-7");
    metrics.answered(404);
    metrics.worker_loaded("W-9000-m_2.0", milliseconds(5));
  }
  const auto content = [&](const char* name) { return read_file(folder.path() / name, 1 << 20).value(); };
  const std::string time = "[0-9-]{10}T[0-9:]{8},[0-9]{3} - ", end = "[0-9]{10}\n";
  EXPECT_THAT(content("model_metrics.log"),
              MatchesRegex(time + "HandlerTime\\.ms:8\\.0\\|#ModelName:m,Level:Model\\|#hostname:box,requestID:id-7,timestamp:" + end + time +
                           "PredictionTime\\.ms:8\\.0\\|#ModelName:m,Level:Model\\|#hostname:box,requestID:id-7,timestamp:" + end));
  for (const char* line : {"- ts_inference_requests_total.Count:1.0|#model_name:m,model_version:2.0|#hostname:box,timestamp:",
                           "- ts_queue_latency_microseconds.Microseconds:2000.0|#model_name:m,model_version:2.0|#hostname:box,timestamp:",
                           "- ts_inference_latency_microseconds.Microseconds:10000.0|#model_name:m,model_version:2.0|#hostname:box,timestamp:",
                           "- QueueTime.Milliseconds:2.0|#Level:Host|#hostname:box,timestamp:", "- WorkerThreadTime.Milliseconds:1.0|#Level:Host|",
                           "- Requests4XX.Count:1.0|#Level:Host|", "- WorkerLoadTime.Milliseconds:5.0|#WorkerName:W-9000-m_2.0,Level:Host|"}) {
    EXPECT_THAT(content("ts_metrics.log"), HasSubstr(line));
  }
}

TEST(ServingMetrics, TheMachineAndItsWorkersAreShown) {
  ServingMetrics metrics("box");
  SystemSample sample;
  sample.cpu_percent = 12.5;
  sample.memory = MemoryUse{1, 3, 25};
  sample.disk = DiskUse{4, 6, 40};
  sample.gpus.push_back({"0", 50, 20, 10});
  metrics.set_system(sample);
  metrics.worker_loaded("W-9000-m_1.0", milliseconds(1234));
  const std::string text = metrics.render({});
  for (const char* line : {"CPUUtilization{Level=\"Host\",Hostname=\"box\",} 12.5", "MemoryUsed{Level=\"Host\",Hostname=\"box\",} 1.0",
                           "MemoryAvailable{Level=\"Host\",Hostname=\"box\",} 3.0", "MemoryUtilization{Level=\"Host\",Hostname=\"box\",} 25.0",
                           "DiskUsage{Level=\"Host\",Hostname=\"box\",} 4.0", "DiskAvailable{Level=\"Host\",Hostname=\"box\",} 6.0",
                           "DiskUtilization{Level=\"Host\",Hostname=\"box\",} 40.0",
                           "GPUUtilization{Level=\"Host\",DeviceId=\"0\",Hostname=\"box\",} 50.0",
                           "GPUMemoryUsed{Level=\"Host\",DeviceId=\"0\",Hostname=\"box\",} 20.0",
                           "GPUMemoryUtilization{Level=\"Host\",DeviceId=\"0\",Hostname=\"box\",} 10.0",
                           "WorkerLoadTime{WorkerName=\"W-9000-m_1.0\",Level=\"Host\",Hostname=\"box\",} 1234.0"}) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
}

}  // namespace
}  // namespace penstock::frontend
