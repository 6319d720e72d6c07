#include "frontend/serving_metrics.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>
#include <utility>

#include "frontend/engine_metrics.h"
#include "frontend/model_registry.h"

namespace penstock::frontend {
namespace {

// Upper ends of the buckets, in seconds: from a message of a small model to a request of minutes.
const std::vector<double> kSeconds = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                      0.25,   0.5,     1,      2.5,   5,      10,    30,   60,    120};

// vLLM's.
const std::vector<double> kFirstTokenSeconds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                                1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const std::vector<double> kBetweenTokensSeconds = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
const std::vector<double> kTextSeconds = {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const std::vector<double> kTokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

const Labels kOfText = {"model_name", "model_version"};
const Labels kOfHost = {"Level", "Hostname"};
const Labels kOfGpu = {"Level", "DeviceId", "Hostname"};
const Labels kOfModel = {"ModelName", "Level", "Hostname"};
const Labels kOfVersion = {"model_name", "model_version", "hostname"};
const Labels kOfProtocol = {"model_name", "model_version", "protocol"};

constexpr std::string_view kRequestNames[] = {"Requests2XX", "Requests4XX", "Requests5XX"};
constexpr std::string_view kProtocolNames[kNumProtocols] = {"grpc", "http"};

// TorchServe's words, which dashboards may show.
MetricHead torchserve(const char* name, const char* type, const char* unit, Labels labels) {
  return {name, fmt::format("Torchserve prometheus {} metric with unit: {}", type, unit), std::move(labels)};
}

// "RESOURCE_EXHAUSTED".
std::string code_label(Code code) {
  std::string label(to_string(code));
  for (char& c : label) c = c == ' ' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return label;
}

MetricHead ours(const char* name, const char* help, Labels labels) { return {name, help, std::move(labels)}; }

constexpr std::string_view kLegacy[] = {"ts_inference_requests_total", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"};

}  // namespace

// In the order in which they are shown.
ServingMetrics::ServingMetrics(std::string hostname)
    : hostname_(std::move(hostname)),
      requests_{registry_.counter(torchserve("Requests2XX", "counter", "Count", kOfHost)).with({"Host", hostname_}),
                registry_.counter(torchserve("Requests4XX", "counter", "Count", kOfHost)).with({"Host", hostname_}),
                registry_.counter(torchserve("Requests5XX", "counter", "Count", kOfHost)).with({"Host", hostname_})},
      inference_requests_(registry_.counter(torchserve("ts_inference_requests_total", "counter", "Count", kOfVersion))),
      inference_latency_(registry_.counter(torchserve("ts_inference_latency_microseconds", "counter", "Microseconds", kOfVersion))),
      queue_latency_(registry_.counter(torchserve("ts_queue_latency_microseconds", "counter", "Microseconds", kOfVersion))),
      queue_time_(host_gauge("QueueTime", "Milliseconds")),
      worker_thread_time_(host_gauge("WorkerThreadTime", "Milliseconds")),
      worker_load_time_(registry_.gauge(torchserve("WorkerLoadTime", "gauge", "Milliseconds", {"WorkerName", "Level", "Hostname"}))),
      cpu_(host_gauge("CPUUtilization", "Percent")),
      memory_used_(host_gauge("MemoryUsed", "Megabytes")),
      memory_available_(host_gauge("MemoryAvailable", "Megabytes")),
      memory_utilization_(host_gauge("MemoryUtilization", "Percent")),
      disk_used_(host_gauge("DiskUsage", "Gigabytes")),
      disk_utilization_(host_gauge("DiskUtilization", "Percent")),
      disk_available_(host_gauge("DiskAvailable", "Gigabytes")),
      gpu_memory_utilization_(registry_.gauge(torchserve("GPUMemoryUtilization", "gauge", "Percent", kOfGpu))),
      gpu_memory_used_(registry_.gauge(torchserve("GPUMemoryUsed", "gauge", "Megabytes", kOfGpu))),
      gpu_utilization_(registry_.gauge(torchserve("GPUUtilization", "gauge", "Percent", kOfGpu))),
      handler_time_(registry_.gauge(torchserve("HandlerTime", "gauge", "ms", kOfModel))),
      prediction_time_(registry_.gauge(torchserve("PredictionTime", "gauge", "ms", kOfModel))),
      ended_(registry_.counter(ours("penstock_requests_total", "Inference requests that have ended, by how they ended",
                                    {"model_name", "model_version", "protocol", "code"}))),
      queue_seconds_(registry_.histogram(ours("penstock_queue_seconds", "From request until a worker takes it", kOfProtocol), kSeconds)),
      first_message_seconds_(registry_.histogram(
          ours("penstock_first_message_seconds", "From request until its worker's first message", kOfProtocol), kSeconds)),
      between_seconds_(registry_.histogram(
          ours("penstock_between_messages_seconds", "From one message of a request's worker until the next", kOfProtocol), kSeconds)),
      total_seconds_(registry_.histogram(ours("penstock_request_seconds", "From request until its end", kOfProtocol), kSeconds)),
      prompt_tokens_(registry_.counter(ours("vllm:prompt_tokens_total", "Tokens of the prompts of generations that have ended", kOfText))),
      generation_tokens_(registry_.counter(ours("vllm:generation_tokens_total", "Tokens that these have generated", kOfText))),
      success_(registry_.counter(ours("vllm:request_success_total", "Generations that have come to their end", {"model_name", "model_version", "finished_reason"}))),
      first_token_seconds_(registry_.histogram(ours("vllm:time_to_first_token_seconds", "From request until its first token", kOfText), kFirstTokenSeconds)),
      between_tokens_seconds_(registry_.histogram(ours("vllm:inter_token_latency_seconds", "From one token of a request until the next", kOfText), kBetweenTokensSeconds)),
      e2e_seconds_(registry_.histogram(ours("vllm:e2e_request_latency_seconds", "From request until its last token", kOfText), kTextSeconds)),
      prompt_length_(registry_.histogram(ours("vllm:request_prompt_tokens", "Tokens of a prompt", kOfText), kTokens)),
      generation_length_(registry_.histogram(ours("vllm:request_generation_tokens", "Tokens that a request has generated", kOfText), kTokens)) {}

ModelMeter::Text ServingMetrics::text_figures(const std::string& model, const std::string& version) {
  const Labels labels = {model, version};
  return {.first_token = first_token_seconds_.with(labels),
          .between_tokens = between_tokens_seconds_.with(labels),
          .total = e2e_seconds_.with(labels),
          .prompt_length = prompt_length_.with(labels),
          .length = generation_length_.with(labels),
          .prompt_tokens = prompt_tokens_.with(labels),
          .tokens = generation_tokens_.with(labels),
          .stopped = success_.with({model, version, "stop"}),
          .at_limit = success_.with({model, version, "length"}),
          .aborted = success_.with({model, version, "abort"})};
}

MetricFamily<Gauge>& ServingMetrics::host_gauge(const char* name, const char* unit) {
  return registry_.gauge(torchserve(name, "gauge", unit, kOfHost));
}

std::shared_ptr<ModelMeter> ServingMetrics::meter(const std::string& model, const std::string& version) {
  std::array<ModelMeter::Times, kNumProtocols> times;
  for (size_t i = 0; i < kNumProtocols; ++i) {
    const Labels labels = {model, version, std::string(kProtocolNames[i])};
    times[i] = {queue_seconds_.with(labels), first_message_seconds_.with(labels), between_seconds_.with(labels), total_seconds_.with(labels),
                ended_.with({model, version, labels[2], "OK"})};
  }
  const Labels labels = {model, version, hostname_};
  ModelMeter::TorchServe torchserve;
  torchserve.requests = inference_requests_.with(labels);
  torchserve.latency_us = inference_latency_.with(labels);
  torchserve.queue_us = queue_latency_.with(labels);
  torchserve.queue_ms = queue_time_.with({"Host", hostname_});
  torchserve.dispatch_ms = worker_thread_time_.with({"Host", hostname_});
  torchserve.worker_ms = prediction_time_.with({model, "Model", hostname_});
  torchserve.handler_ms = handler_time_.with({model, "Model", hostname_});
  const auto failed = [this, model, version](Protocol protocol, Code code) {
    ended_.with({model, version, std::string(kProtocolNames[static_cast<size_t>(protocol)]), code_label(code)})->add();
  };
  const auto make_text = [this, model, version] { return text_figures(model, version); };
  return std::make_shared<ModelMeter>(ModelMeter::Names{model, version}, std::move(times), std::move(torchserve), make_text, failed, lines_);
}

void ServingMetrics::answered(int http_status) {
  const size_t kind = http_status < 400 ? 0 : http_status < 500 ? 1 : 2;
  requests_[kind]->add();
  if (lines_) lines_->host(kRequestNames[kind], "Count", 1);
}

void ServingMetrics::worker_loaded(const std::string& worker, milliseconds took) {
  const auto value = static_cast<double>(took.count());
  worker_load_time_.with({worker, "Host", hostname_})->set(value);
  if (lines_) lines_->host("WorkerLoadTime", "Milliseconds", value, "WorkerName:" + worker + ",");
}

void ServingMetrics::set_host(MetricFamily<Gauge>& family, const char* name, const char* unit, double value) {
  family.with({"Host", hostname_})->set(value);
  if (lines_) lines_->host(name, unit, value);
}

void ServingMetrics::set_system(const SystemSample& sample) {
  if (sample.cpu_percent) set_host(cpu_, "CPUUtilization", "Percent", *sample.cpu_percent);
  if (sample.disk) {
    set_host(disk_available_, "DiskAvailable", "Gigabytes", sample.disk->available_gb);
    set_host(disk_used_, "DiskUsage", "Gigabytes", sample.disk->used_gb);
    set_host(disk_utilization_, "DiskUtilization", "Percent", sample.disk->percent);
  }
  if (sample.memory) {
    set_host(memory_available_, "MemoryAvailable", "Megabytes", sample.memory->available_mb);
    set_host(memory_used_, "MemoryUsed", "Megabytes", sample.memory->used_mb);
    set_host(memory_utilization_, "MemoryUtilization", "Percent", sample.memory->percent);
  }
  for (const GpuUse& gpu : sample.gpus) set_gpu(gpu);
}

void ServingMetrics::set_gpu(const GpuUse& gpu) {
  const Labels labels = {"Host", gpu.device, hostname_};
  gpu_utilization_.with(labels)->set(gpu.percent);
  gpu_memory_used_.with(labels)->set(gpu.memory_used_mb);
  gpu_memory_utilization_.with(labels)->set(gpu.memory_percent);
  if (!lines_) return;
  const std::string dimension = "DeviceId:" + gpu.device + ",";
  lines_->host("GPUUtilization", "Percent", gpu.percent, dimension);
  lines_->host("GPUMemoryUsed", "Megabytes", gpu.memory_used_mb, dimension);
  lines_->host("GPUMemoryUtilization", "Percent", gpu.memory_percent, dimension);
}

std::string ServingMetrics::render(std::vector<std::string> wanted, bool legacy) const {
  if (!legacy) return registry_.render(wanted);
  if (wanted.empty()) return registry_.render({std::begin(kLegacy), std::end(kLegacy)});
  std::erase_if(wanted, [](const std::string& name) { return std::find(std::begin(kLegacy), std::end(kLegacy), name) == std::end(kLegacy); });
  return wanted.empty() ? "" : registry_.render(wanted);
}

void ServingMetrics::watch(const ModelRegistry& models) {
  registry_.collect([&models](MetricText& text) {
    using Value = double (*)(ServedModel&);
    struct Family {
      const char *name, *help;
      Value value;
    };
    static constexpr Family kFamilies[] = {
        {"penstock_queue_depth", "Requests that wait for a worker", [](ServedModel& m) { return static_cast<double>(m.jobs().num_waiting()); }},
        {"penstock_requests_running", "Requests that a worker has", [](ServedModel& m) { return static_cast<double>(m.jobs().num_running()); }},
        {"penstock_workers_ready", "Worker groups that take requests",
         [](ServedModel& m) {
           const auto workers = m.workers();
           return static_cast<double>(std::count_if(workers.begin(), workers.end(), [](const WorkerStatus& worker) {
             return worker.state == GroupState::kReady && !worker.leaving;
           }));
         }},
        {"penstock_workers", "Worker groups that there should be", [](ServedModel& m) { return static_cast<double>(m.range().min); }},
    };
    const auto all = models.models();
    for (const Family& family : kFamilies) {
      text.family(family.name, "gauge", family.help);
      for (const auto& model : all) text.sample({"model_name", "model_version"}, {model->name(), model->version()}, family.value(*model));
    }
    write_engine_metrics(text, all);
  });
}

}  // namespace penstock::frontend
