#include "config/model_config.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <string_view>
#include <utility>

#include "config/fields.h"
#include "config/foreign_config.h"
#include "config/yaml_reader.h"

namespace penstock::config {
namespace {

constexpr const char* kAlways = "not applicable: batches are always made anew at every token";
constexpr const char* kPython = "not applicable: a setting of Python handlers";
constexpr const char* kTorchrun = "not applicable: the ranks of a group find each other without torchrun";

// Keys that do nothing here, with all that stands below them.
constexpr std::pair<const char*, const char*> kIdleKeys[] = {
    {"pippy", kPython},
    {"deepspeed", kPython},
    {"micro_batching", kPython},
    {"pt2", kPython},
    {"dali", kPython},
    {"handler.index_filename", "not applicable: the model's directory says where its weights are"},
    {"handler.max_length", "not supported yet: a request says its own max_tokens"},
    {"handler.max_new_tokens", "not supported yet: a request says its own max_tokens"},
    {"handler.manual_seed", "not supported yet: a request says its own seed"},
    {"handler.converted_ckpt_dir", kPython},
    {"handler.tokenizer_path", "not supported yet: the tokenizer is that of the model's directory"},
    {"handler.model_args_path", kPython},
    {"handler.mode", kPython},
    {"handler.stream", "not applicable: the client chooses with the call it makes"},
    {"handler.compile", kPython},
    {"handler.profile", kPython},
    {"handler.vllm_engine_config", kPython},
    {"handler.adapters", "not supported yet: adapters"},
    {"handler.chat_template", "not supported yet: the template is that of the model's directory"},
    {"handler.engine_dir", kPython},
    {"handler.tokenizer_dir", kPython},
    {"handler.kv_cache_config", kPython},
};

// Where keys that do nothing, but have a type, leave their value.
struct IdleValues {
  bool boolean = false;
  int64_t integer = 0;
  std::string text;
};

// The typed keys that do nothing here.
std::vector<Field> idle_fields(IdleValues& idle_values) {
  std::vector<Field> fields = {
      noted(boolean_field("continuousBatching", idle_values.boolean, ""), kAlways),
      noted(boolean_field("asyncCommunication", idle_values.boolean, ""), "not applicable: workers always answer in any order"),
      noted(boolean_field("useVenv", idle_values.boolean, ""), "not supported yet: a Python environment for each model"),
      noted(text_field("torchrun.rdzv-backend", idle_values.text, ""), kTorchrun),
      noted(text_field("torchrun.rdzv-conf", idle_values.text, ""), kTorchrun),
      noted(integer_field("torchrun.monitor-interval", idle_values.integer, {1}, ""), kTorchrun),
  };
  for (const auto& [key, why] : kIdleKeys) fields.push_back(idle(key, why));
  return fields;
}

// Values of keys whose meaning is not a plain variable.
struct RawModelConfig {
  seconds response_timeout{0};
  seconds startup_timeout{0};
  int batch_size = 0;
  int max_batch_delay_ms = 0;
  int client_timeout_ms = 0;
  int scale_up_ms = 2000;
  int scale_down_ms = 60000;
  int sequence_max_idle_ms = 0;
  int sequence_timeout_ms = 0;
  std::string model_path;
  std::string rdzv_endpoint;
  int node_rank = 0;
  IdleValues idle;
};

// `handler` is a map of settings, or the handler's name.
Field handler_field(std::string& name) {
  Field field = text_field("handler", name, "");
  field.expected = "a map, or the handler's name";
  field.assign = [as_text = field.assign](const RawValue& value) {
    return value.kind == RawValue::Kind::kMap || value.kind == RawValue::Kind::kNothing || as_text(value);
  };
  return field;
}

std::vector<Field> fields_of(ModelConfig& c, RawModelConfig& raw) {
  std::vector<Field> fields = {
      integer_field("minWorkers", c.min_workers, {0, 1024}, ""),
      integer_field("maxWorkers", c.max_workers, {0, 1024}, ""),
      integer_field("scaleUpAfterMSec", raw.scale_up_ms, {0, 3'600'000}, ""),
      integer_field("scaleDownAfterMSec", raw.scale_down_ms, {0, 86'400'000}, ""),
      integer_field("batchSize", raw.batch_size, {1}, ""),
      integer_field("maxBatchDelay", raw.max_batch_delay_ms, {0}, ""),
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
      integer_field("torchrun.nnodes", c.torchrun.nnodes, {1, 1024}, ""),
      integer_field("torchrun.nproc-per-node", c.torchrun.nproc_per_node, {1, 1024}, ""),
      integer_field("torchrun.OMP_NUMBER_THREADS", c.torchrun.omp_num_threads, {1, 1024}, ""),
      text_field("torchrun.rdzv-endpoint", raw.rdzv_endpoint, ""),
      integer_field("torchrun.node-rank", raw.node_rank, {0}, ""),
      integer_field("jobQueueSize", c.job_queue_size, {0}, ""),
      integer_field("clientTimeoutInMills", raw.client_timeout_ms, {0}, ""),
      boolean_field("useJobTicket", c.use_job_ticket, ""),
      boolean_field("sequenceBatching", c.sequences.batching, ""),
      integer_field("sequenceMaxIdleMSec", raw.sequence_max_idle_ms, {0}, ""),
      integer_field("sequenceTimeoutMSec", raw.sequence_timeout_ms, {0}, ""),
      integer_field("maxSequenceJobQueueSize", c.sequences.max_waiting, {1}, ""),
      integer_field("maxNumSequence", c.sequences.max_sequences, {1}, ""),
      seconds_field("maxRetryTimeoutInSec", c.max_retry_timeout, {0}, ""),
      handler_field(c.handler.name),
      text_field("handler.name", c.handler.name, ""),
      text_field("handler.model_path", raw.model_path, ""),
      integer_field("handler.max_sequence_tokens", c.handler.max_sequence_tokens, {0}, ""),
      integer_field("handler.max_concurrent", c.handler.max_concurrent, {1, 4096}, ""),
      integer_field("handler.tensor_ranks", c.handler.tensor_ranks, {1, 1024}, ""),
      integer_field("handler.kv_cache_mb", c.handler.kv_cache_mb, {0}, ""),
      choice_field<ComputeType>("handler.kv_cache_dtype", c.handler.kv_cache_dtype,
                                {{"auto", ComputeType::kAuto}, {"fp32", ComputeType::kFloat32}, {"bf16", ComputeType::kBfloat16}}, ""),
      boolean_field("handler.retry", c.handler.retry, ""),
      choice_field<bool>("handler.generation_config", c.handler.generation_config, {{"auto", true}, {"none", false}}, ""),
      choice_field<ToolCallParser>("handler.tool_call_parser", c.handler.tool_call_parser,
                                   {{"auto", ToolCallParser::kAuto},
                                    {"none", ToolCallParser::kNone},
                                    {"hermes", ToolCallParser::kHermes},
                                    {"llama3_json", ToolCallParser::kLlama3Json},
                                    {"mistral", ToolCallParser::kMistral}},
                                   ""),
      choice_field<HandlerDevice>("handler.device", c.handler.device,
                                  {{"auto", HandlerDevice::kAuto}, {"cpu", HandlerDevice::kCpu}, {"cuda", HandlerDevice::kCuda}}, ""),
      choice_field<ComputeType>("handler.dtype", c.handler.dtype,
                                {{"auto", ComputeType::kAuto}, {"fp32", ComputeType::kFloat32}, {"bf16", ComputeType::kBfloat16}}, ""),
      choice_field<Quantization>("handler.quantization", c.handler.quantization,
                                 {{"auto", Quantization::kAuto}, {"none", Quantization::kNone}, {"int8", Quantization::kInt8}, {"int4", Quantization::kInt4}}, ""),
  };
  for (Field& field : idle_fields(raw.idle)) fields.push_back(std::move(field));
  return fields;
}

// What the keys mean together; `lines` tells which were given, and where.
class Check {
 public:
  Check(const ModelConfig& config, const RawModelConfig& raw, const Filled& filled, const std::string& file)
      : c_(config), raw_(raw), filled_(filled), file_(file) {}

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
    if (c_.handler.device == HandlerDevice::kCuda && c_.device_type == DeviceType::kCpu) {
      return fail(Code::kInvalidArgument, "handler.device", "cuda, but deviceType (line {}) is cpu, which hides every GPU from the workers", line("deviceType"));
    }
    if (c_.handler.device == HandlerDevice::kCpu && c_.device_type == DeviceType::kGpu) {
      return fail(Code::kInvalidArgument, "handler.device", "cpu, but deviceType (line {}) is gpu: the GPUs would be held for nothing", line("deviceType"));
    }
    if (c_.handler.device == HandlerDevice::kCpu && given("deviceIds")) {
      return fail(Code::kInvalidArgument, "handler.device", "cpu, but deviceIds (line {}) lists GPUs", line("deviceIds"));
    }
    return check_parallel();
  }

 private:
  [[nodiscard]] std::optional<Error> check_parallel() const {
    if (auto problem = check_machines()) return problem;
    if (given("parallelLevel") && given("torchrun.nproc-per-node") && c_.parallel_level != c_.torchrun.nproc_per_node) {
      return fail(Code::kInvalidArgument, "torchrun.nproc-per-node", "{} contradicts parallelLevel {} on line {}; give one of them",
                  c_.torchrun.nproc_per_node, c_.parallel_level, line("parallelLevel"));
    }
    if (c_.parallel_type == ParallelType::kNone && c_.num_ranks() > 1) {
      const char* key = given("parallelLevel") ? "parallelLevel" : given("torchrun.nproc-per-node") ? "torchrun.nproc-per-node" : "torchrun.nnodes";
      return fail(Code::kInvalidArgument, key, "{} processes for one worker need 'parallelType: pp', or tp or pptp", c_.num_ranks());
    }
    if (given("handler.tensor_ranks") && c_.parallel_type != ParallelType::kBoth) {
      return fail(Code::kInvalidArgument, "handler.tensor_ranks", "is for 'parallelType: pptp'; with tp all processes of a worker share each layer, with others none do");
    }
    if (c_.num_ranks() % c_.tensor_ranks() != 0) {
      return fail(Code::kInvalidArgument, "handler.tensor_ranks", "expected a divisor of a worker's {} processes, found {}", c_.num_ranks(), c_.tensor_ranks());
    }
    if (!c_.device_ids.empty() && c_.device_ids.size() < static_cast<size_t>(c_.devices_per_host())) {
      return fail(Code::kInvalidArgument, "deviceIds", "expected at least {} devices for one worker, found {}", c_.devices_per_host(),
                  c_.device_ids.size());
    }
    return std::nullopt;
  }

  [[nodiscard]] std::optional<Error> check_machines() const {
    if (c_.torchrun.nnodes > 1 && c_.parallel_type == ParallelType::kCustom) {
      return fail(Code::kInvalidArgument, "torchrun.nnodes", "expected 1, found {}: with 'parallelType: custom' a worker is one process, on one machine",
                  c_.torchrun.nnodes);
    }
    if (raw_.node_rank > 0) {
      return fail(Code::kInvalidArgument, "torchrun.node-rank", "expected 0, found {}: the front door's machine is the first of a worker group, and "
                  "`penstock agent` on the others needs no number", raw_.node_rank);
    }
    if (given("torchrun.rdzv-endpoint") && c_.torchrun.rdzv_host.empty()) {
      return fail(Code::kInvalidArgument, "torchrun.rdzv-endpoint", "expected HOST or HOST:PORT, found '{}'", raw_.rdzv_endpoint.substr(0, 200));
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
  const RawModelConfig& raw_;
  const Filled& filled_;
  const std::string& file_;
};

}  // namespace

int ModelConfig::devices_per_host() const {
  if (parallel_level > 0) return parallel_level;
  return torchrun.nproc_per_node > 0 ? torchrun.nproc_per_node : 1;
}

int ModelConfig::ranks_per_host() const { return parallel_type == ParallelType::kCustom ? 1 : devices_per_host(); }
int ModelConfig::num_ranks() const { return torchrun.nnodes * ranks_per_host(); }

int ModelConfig::tensor_ranks() const {
  if (parallel_type == ParallelType::kTensor) return num_ranks();
  if (parallel_type != ParallelType::kBoth) return 1;
  return handler.tensor_ranks > 0 ? handler.tensor_ranks : ranks_per_host();
}

void ModelConfig::fill_gaps(const ModelSettings& weaker) {
  if (min_workers == 0) min_workers = weaker.min_workers.value_or(0);
  if (max_workers == 0) max_workers = weaker.max_workers.value_or(0);
  if (!batch_size) batch_size = weaker.batch_size;
  if (!max_batch_delay_ms) max_batch_delay_ms = weaker.max_batch_delay_ms;
  if (!response_timeout) response_timeout = weaker.response_timeout;
  if (!startup_timeout) startup_timeout = weaker.startup_timeout;
}

void ModelConfig::override_with(const ModelSettings& stronger) {
  min_workers = stronger.min_workers.value_or(min_workers);
  max_workers = stronger.max_workers.value_or(max_workers);
  if (stronger.batch_size) batch_size = stronger.batch_size;
  if (stronger.max_batch_delay_ms) max_batch_delay_ms = stronger.max_batch_delay_ms;
  if (stronger.response_timeout) response_timeout = stronger.response_timeout;
  if (stronger.startup_timeout) startup_timeout = stronger.startup_timeout;
}

namespace {

// "host", "host:29500", "[fe80::1]:29500". What is neither leaves the host empty.
void read_endpoint(const std::string& text, TorchrunConfig& torchrun) {
  const bool bracketed = text.starts_with('[');
  const size_t host_end = bracketed ? text.find(']') : text.find(':');
  std::string host = bracketed ? text.substr(1, host_end - 1) : text.substr(0, host_end);
  std::string_view rest = host_end == std::string::npos ? std::string_view() : std::string_view(text).substr(host_end + (bracketed ? 1 : 0));
  if (host.empty() || host.find_first_of(" /") != std::string::npos || (bracketed && host_end == std::string::npos)) return;
  int port = 0;
  if (!rest.empty()) {
    rest.remove_prefix(1);
    const auto [end, wrong] = std::from_chars(rest.data(), rest.data() + rest.size(), port);
    if (wrong != std::errc() || end != rest.data() + rest.size() || port < 0 || port > 65535) return;
  }
  torchrun.rdzv_host = std::move(host);
  torchrun.rdzv_port = port;
}

bool is_handlers(const RawValue& value) { return value.key == "handler" || value.key.starts_with("handler."); }

// `foreign`: keys that are not ours are somebody else's.
Result<ModelConfig> load(const std::filesystem::path& path, bool foreign) {
  const std::string file = path.string();
  Result<std::vector<RawValue>> values = read_yaml(path);
  if (!values) return values.error();
  ModelConfig config;
  RawModelConfig raw;
  const std::vector<Field> fields = fields_of(config, raw);
  if (foreign) {
    std::erase_if(*values, [&](const RawValue& value) {
      const std::string top = value.key.substr(0, value.key.find('.'));
      const auto is_known = [&](const Field& field) { return field.key == top || field.key.starts_with(top + "."); };
      return is_handlers(value) || std::none_of(fields.begin(), fields.end(), is_known);
    });
  }
  Result<Filled> filled = fill(fields, *values, file);
  if (!filled) return filled.error();
  if (foreign) std::erase_if(filled->notes, [](const std::string& note) { return note.ends_with(kPython); });  // here they are applicable
  read_endpoint(raw.rdzv_endpoint, config.torchrun);
  if (auto problem = Check(config, raw, *filled, file).run()) return *problem;
  if (config.handler.device == HandlerDevice::kCpu) config.device_type = DeviceType::kCpu;  // it needs no GPU, and holds none

  if (filled->lines.contains("responseTimeout")) config.response_timeout = raw.response_timeout;
  if (filled->lines.contains("startupTimeout")) config.startup_timeout = raw.startup_timeout;
  if (filled->lines.contains("batchSize")) config.batch_size = raw.batch_size;
  if (filled->lines.contains("maxBatchDelay")) config.max_batch_delay_ms = raw.max_batch_delay_ms;
  const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  config.handler.model_path = raw.model_path.empty() ? folder : (folder / raw.model_path).lexically_normal();
  config.client_timeout = milliseconds(raw.client_timeout_ms);
  config.scale_up_after = milliseconds(raw.scale_up_ms);
  config.scale_down_after = milliseconds(raw.scale_down_ms);
  config.sequences.max_idle = milliseconds(raw.sequence_max_idle_ms);
  config.sequences.max_life = milliseconds(raw.sequence_timeout_ms);
  config.notes = std::move(filled->notes);
  return config;
}

}  // namespace

Result<ModelConfig> load_model_config(const std::filesystem::path& path) { return load(path, /*foreign=*/false); }

Result<ModelConfig> load_foreign_model_config(const std::filesystem::path& folder, const std::filesystem::path& file) {
  auto config = file.empty() ? Result<ModelConfig>(ModelConfig{}) : load(file, /*foreign=*/true);
  if (config) config->handler.model_path = std::filesystem::absolute(folder).lexically_normal();
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
