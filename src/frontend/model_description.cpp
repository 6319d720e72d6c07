#include "frontend/model_description.h"

#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

namespace penstock::frontend {
namespace {

using Json = nlohmann::ordered_json;

const char* parallel_name(config::ParallelType type) {
  switch (type) {
    case config::ParallelType::kPipeline: return "pp";
    case config::ParallelType::kTensor: return "tp";
    case config::ParallelType::kBoth: return "pptp";
    case config::ParallelType::kCustom: return "custom";
    case config::ParallelType::kNone: break;
  }
  return "";
}

// yyyy-MM-dd'T'HH:mm:ss.SSS'Z'
std::string iso_time(std::chrono::system_clock::time_point when) {
  const std::time_t whole = std::chrono::system_clock::to_time_t(when);
  const auto ms = std::chrono::duration_cast<milliseconds>(when.time_since_epoch()).count() % 1000;
  std::tm parts{};
  ::gmtime_r(&whole, &parts);
  char text[32];
  (void)std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:03}Z", text, ms);
}

// Bytes of memory that a process holds; 0 when it is gone.
int64_t resident_bytes(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/statm", pid));
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return file ? resident * ::sysconf(_SC_PAGESIZE) : 0;
}

Json describe_worker(const WorkerStatus& worker) {
  Json json;
  json["id"] = std::to_string(worker.group);
  json["startTime"] = iso_time(worker.started);
  json["status"] = worker.state == GroupState::kReady && !worker.leaving ? "READY" : "UNLOADING";
  int64_t bytes = 0;
  for (const pid_t pid : worker.pids) bytes += resident_bytes(pid);
  json["memoryUsage"] = bytes;
  json["pid"] = worker.pids.empty() ? -1 : worker.pids[0];
  json["gpu"] = !worker.devices.empty();
  json["gpuUsage"] = worker.devices.empty() ? "N/A" : "gpuId::" + cluster::device_list(worker.devices);
  json["state"] = to_string(worker.state);  // more than TorchServe says
  return json;
}

Json describe_model(ServedModel& model, bool customized) {
  const ModelSpec& spec = model.spec();
  const config::ModelConfig& config = spec.config;
  const WorkerRange range = model.range();
  Json json;
  json["modelName"] = spec.name;
  json["modelVersion"] = spec.version;
  json["modelUrl"] = spec.url;
  json["runtime"] = "penstock";
  json["minWorkers"] = range.min;
  json["maxWorkers"] = range.max;
  json["batchSize"] = config.batch_size.value_or(1);
  json["maxBatchDelay"] = config.max_batch_delay_ms.value_or(100);
  json["responseTimeout"] = model.response_timeout().count();
  json["startupTimeout"] = model.startup_timeout().count();
  json["maxRetryTimeoutInSec"] = config.max_retry_timeout.count();
  json["clientTimeoutInMills"] = config.client_timeout.count();
  json["parallelType"] = parallel_name(config.parallel_type);
  json["parallelLevel"] = config.devices_per_host() > 1 ? config.devices_per_host() : 0;
  const auto workers = model.workers();
  const bool gpu = std::any_of(workers.begin(), workers.end(), [](const auto& worker) { return !worker.devices.empty(); });
  json["deviceType"] = gpu || config.device_type == config::DeviceType::kGpu ? "gpu" : "cpu";
  if (!config.device_ids.empty()) json["deviceIds"] = config.device_ids;
  json["continuousBatching"] = true;
  json["useJobTicket"] = config.use_job_ticket;
  json["useVenv"] = false;
  json["stateful"] = config.sequences.batching;
  json["sequenceMaxIdleMSec"] = config.sequences.max_idle.count();
  json["sequenceTimeoutMSec"] = config.sequences.max_life.count();
  json["maxNumSequence"] = config.sequences.max_sequences;
  json["maxSequenceJobQueueSize"] = config.sequences.max_waiting;
  json["loadedAtStartup"] = spec.loaded_at_startup;
  json["workers"] = Json::array();
  for (const WorkerStatus& worker : workers) json["workers"].push_back(describe_worker(worker));
  const int waiting = static_cast<int>(model.jobs().num_waiting());
  json["jobQueueStatus"] = {{"remainingCapacity", std::max(0, model.job_queue_size() - waiting)}, {"pendingRequests", waiting}};
  if (const auto info = model.info(); customized && info) {
    json["customizedMetadata"] = {{"architecture", info->architecture},
                                  {"maxSequenceTokens", info->max_sequence_tokens},
                                  {"maxConcurrent", info->max_concurrent},
                                  {"stages", info->num_stages}};
  }
  return json;
}

}  // namespace

std::string describe_models(std::span<const std::shared_ptr<ServedModel>> models, bool customized) {
  Json all = Json::array();
  for (const auto& model : models) all.push_back(describe_model(*model, customized));
  return all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";  // a folder's name need not be UTF-8
}

}  // namespace penstock::frontend
