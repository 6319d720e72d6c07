#include "config/model_config.h"

#include <set>

#include "config/fields.h"
#include "config/yaml_reader.h"

namespace penstock::config {
namespace {

// Values of keys whose meaning is not a plain variable.
struct RawModelConfig {
  seconds response_timeout{0};
  seconds startup_timeout{0};
  std::string model_path;
};

// Keys of TorchServe that nothing here acts on yet, with all that stands below them.
constexpr const char* kLaterKeys[] = {
    "clientTimeoutInMills",
    "useJobTicket",
    "continuousBatching",
    "asyncCommunication",
    "sequenceBatching",
    "sequenceMaxIdleMSec",
    "sequenceTimeoutMSec",
    "maxSequenceJobQueueSize",
    "maxNumSequence",
    "useVenv",
    "pippy",
    "deepspeed",
    "micro_batching",
    "pt2",
    "dali",
    "torchrun.rdzv-backend",
    "torchrun.rdzv-endpoint",
    "torchrun.rdzv-conf",
    "torchrun.monitor-interval",
    "torchrun.node-rank",
};

std::vector<Field> fields_of(ModelConfig& c, RawModelConfig& raw) {
  std::vector<Field> fields = {
      integer_field("minWorkers", c.min_workers, {1}, ""),
      integer_field("maxWorkers", c.max_workers, {1}, ""),
      integer_field("batchSize", c.batch_size, {1}, ""),
      integer_field("maxBatchDelay", c.max_batch_delay_ms, {0}, ""),
      seconds_field("responseTimeout", raw.response_timeout, {1}, ""),
      seconds_field("startupTimeout", raw.startup_timeout, {1}, ""),
      choice_field<DeviceType>("deviceType", c.device_type,
                               {{"auto", DeviceType::kAuto}, {"cpu", DeviceType::kCpu}, {"gpu", DeviceType::kGpu}}, ""),
      integer_list_field("deviceIds", c.device_ids, {0}, ""),
      choice_field<ParallelType>("parallelType", c.parallel_type,
                                 {{"none", ParallelType::kNone},
                                  {"pp", ParallelType::kPipeline},
                                  {"tp", ParallelType::kTensor},
                                  {"pptp", ParallelType::kBoth},
                                  {"custom", ParallelType::kCustom}},
                                 ""),
      integer_field("parallelLevel", c.parallel_level, {1, 1024}, ""),
      integer_field("torchrun.nnodes", c.torchrun.nnodes, {1}, ""),
      integer_field("torchrun.nproc-per-node", c.torchrun.nproc_per_node, {1, 1024}, ""),
      integer_field("torchrun.OMP_NUMBER_THREADS", c.torchrun.omp_num_threads, {1, 1024}, ""),
      integer_field("jobQueueSize", c.job_queue_size, {1}, ""),
      seconds_field("maxRetryTimeoutInSec", c.max_retry_timeout, {0}, ""),
      text_field("handler.model_path", raw.model_path, ""),
      integer_field("handler.max_sequence_tokens", c.handler.max_sequence_tokens, {0}, ""),
      integer_field("handler.max_concurrent", c.handler.max_concurrent, {1, 4096}, ""),
      choice_field<ComputeType>("handler.dtype", c.handler.dtype,
                                {{"auto", ComputeType::kAuto}, {"fp32", ComputeType::kFloat32}, {"bf16", ComputeType::kBfloat16}}, ""),
  };
  for (const char* key : kLaterKeys) fields.push_back(later(key));
  return fields;
}

// What the keys mean together; `lines` tells which were given, and where.
class Check {
 public:
  Check(const ModelConfig& config, const Filled& filled, const std::string& file) : c_(config), filled_(filled), file_(file) {}

  [[nodiscard]] std::optional<Error> run() const {
    if (c_.max_workers > 0 && c_.max_workers < c_.min_workers) {
      return fail(Code::kInvalidArgument, "maxWorkers", "expected at least minWorkers, {} (line {}), found {}", c_.min_workers,
                  line("minWorkers"), c_.max_workers);
    }
    if (std::set<int>(c_.device_ids.begin(), c_.device_ids.end()).size() != c_.device_ids.size()) {
      return fail(Code::kInvalidArgument, "deviceIds", "the same device is listed twice");
    }
    if (given("deviceIds") && c_.device_type == DeviceType::kCpu) {
      return fail(Code::kInvalidArgument, "deviceIds", "GPUs are listed, but deviceType (line {}) is cpu", line("deviceType"));
    }
    return check_parallel();
  }

 private:
  [[nodiscard]] std::optional<Error> check_parallel() const {
    const bool pipeline = c_.parallel_type == ParallelType::kPipeline;
    if (!pipeline && c_.parallel_type != ParallelType::kNone) {
      return fail(Code::kUnimplemented, "parallelType", "tp, pptp and custom are not supported yet; use pp, or leave it out");
    }
    if (c_.torchrun.nnodes > 1) {
      return fail(Code::kUnimplemented, "torchrun.nnodes", "a worker group on several machines is not supported yet; expected 1, found {}",
                  c_.torchrun.nnodes);
    }
    if (given("parallelLevel") && given("torchrun.nproc-per-node") && c_.parallel_level != c_.torchrun.nproc_per_node) {
      return fail(Code::kInvalidArgument, "torchrun.nproc-per-node", "{} contradicts parallelLevel {} on line {}; give one of them",
                  c_.torchrun.nproc_per_node, c_.parallel_level, line("parallelLevel"));
    }
    if (!pipeline && c_.num_stages() > 1) {
      const char* key = given("parallelLevel") ? "parallelLevel" : "torchrun.nproc-per-node";
      return fail(Code::kInvalidArgument, key, "{} processes for one worker need 'parallelType: pp'", c_.num_stages());
    }
    if (!c_.device_ids.empty() && c_.device_ids.size() < static_cast<size_t>(c_.num_stages())) {
      return fail(Code::kInvalidArgument, "deviceIds", "expected at least {} devices, one for each stage, found {}", c_.num_stages(),
                  c_.device_ids.size());
    }
    return std::nullopt;
  }

  [[nodiscard]] bool given(const char* key) const { return filled_.lines.contains(key); }
  [[nodiscard]] int line(const char* key) const { return given(key) ? filled_.lines.at(key) : 0; }
  template <typename... Args>
  [[nodiscard]] Error fail(Code code, const char* key, fmt::format_string<Args...> format, Args&&... args) const {
    return error(code, "{}key '{}': {}", place(file_, line(key)), key, fmt::format(format, std::forward<Args>(args)...));
  }

  const ModelConfig& c_;
  const Filled& filled_;
  const std::string& file_;
};

}  // namespace

int ModelConfig::num_stages() const {
  if (parallel_level > 0) return parallel_level;
  return torchrun.nproc_per_node > 0 ? torchrun.nproc_per_node : 1;
}

Result<ModelConfig> load_model_config(const std::filesystem::path& path) {
  const std::string file = path.string();
  Result<std::vector<RawValue>> values = read_yaml(path);
  if (!values) return values.error();
  ModelConfig config;
  RawModelConfig raw;
  Result<Filled> filled = fill(fields_of(config, raw), *values, file);
  if (!filled) return filled.error();
  if (auto problem = Check(config, *filled, file).run()) return *problem;

  if (filled->lines.contains("responseTimeout")) config.response_timeout = raw.response_timeout;
  if (filled->lines.contains("startupTimeout")) config.startup_timeout = raw.startup_timeout;
  const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  config.handler.model_path = raw.model_path.empty() ? folder : (folder / raw.model_path).lexically_normal();
  config.notes = std::move(filled->notes);
  return config;
}

Result<ModelConfig> load_model_folder_config(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) return error(Code::kNotFound, "there is no model folder {}", folder.string());
  const std::filesystem::path file = folder / "model-config.yaml";
  if (std::filesystem::exists(file, ignored)) return load_model_config(file);
  ModelConfig config;
  config.handler.model_path = std::filesystem::absolute(folder).lexically_normal();
  return config;
}

}  // namespace penstock::config
