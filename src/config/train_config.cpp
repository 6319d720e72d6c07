#include "config/train_config.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/shown.h"
#include "config/fields.h"
#include "config/yaml_reader.h"

namespace penstock::config {
namespace {

constexpr size_t kMaxDecayExpression = 1000;  // bytes; std::regex compiles by recursion, and a long one overflows the stack

// Every key of the file, once.
std::vector<Field> fields_of(TrainConfig& c) {
  constexpr size_t kPath = 4096, kName = 255, kBoundaries = 32768;  // bytes: Linux's limits, and the numbers of 4096 stages
  constexpr RealRange kPositive{.min = 0, .min_excluded = true};
  constexpr RealRange kBeta{.min = 0, .max = 1, .max_excluded = true};
  TrainModelConfig& m = c.model;
  OptimizerConfig& o = c.optimizer;
  return {
      text_field("model.path", m.path, "a Hugging Face directory to start from, which then says the shape; empty = a new model", kPath),
      integer_field("model.hidden_size", m.hidden_size, {1, 1 << 20}, "width of the model"),
      integer_field("model.num_layers", m.num_layers, {1, 4096}, "transformer blocks"),
      integer_field("model.num_heads", m.num_heads, {1, 4096}, "attention heads; divides hidden_size"),
      integer_field("model.num_kv_heads", m.num_kv_heads, {0, 4096}, "heads of keys and values; divides num_heads; 0 = num_heads"),
      integer_field("model.intermediate_size", m.intermediate_size, {1, 1 << 22}, "width inside the feed-forward block"),
      integer_field("model.max_position_embeddings", m.max_position_embeddings, {0, 1 << 24},
                    "longest sequence in tokens; 0 = batch.sequence_length"),
      real_field("model.rope_theta", m.rope_theta, kPositive, "base of the rotary embedding"),
      real_field("model.rms_norm_eps", m.rms_norm_eps, kPositive, "added to the mean square in RMSNorm"),
      boolean_field("model.tie_word_embeddings", m.tie_word_embeddings, "the head shares the embedding's weights"),
      text_list_field("data.path", c.data.paths, "files, or folders whose files are all read; or one folder of `penstock data prepare`", kPath),
      text_list_field("data.validation_path", c.data.validation_paths, "the same, held out whole instead of a share of data.path", kPath),
      choice_field<TextFormat>("data.format", c.data.format, {{"auto", TextFormat::kAuto}, {"text", TextFormat::kText}, {"jsonl", TextFormat::kJsonl}, {"chat", TextFormat::kChat}},
                               "of files; auto = JSON lines where a name ends in .jsonl or .ndjson, else text; chat = JSON lines with messages, of which the assistant's "
                               "are learned"),
      text_field("data.text_key", c.data.text_key, "JSON lines: the key of the text", kPath),
      text_field("data.separator", c.data.separator, "a line of just this cuts documents; empty = one document a file", kPath),
      real_field("data.validation_fraction", c.data.validation_fraction, {.min = 0, .max = 1, .max_excluded = true},
                 "of the documents, held out"),
      choice_field<DataPacking>("data.packing", c.data.packing, {{"stream", DataPacking::kStream}, {"document", DataPacking::kDocument}, {"whole", DataPacking::kWhole}},
                                "stream = a sequence goes on across documents; document = nothing is seen or predicted across their borders; whole = nor is a document "
                                "cut that fits into a sequence"),
      integer_field("mesh.data", c.mesh.data, {1, 65536}, "replicas"),
      integer_field("mesh.pipe", c.mesh.pipe, {1, 4096}, "pipeline stages"),
      integer_field("mesh.tensor", c.mesh.tensor, {1, 1024}, "ranks that share each layer; divides num_heads and num_kv_heads"),
      text_field("schedule", c.schedule, "order of the pipeline's actions: a name that `penstock schedule --list` shows, auto, or a .csv file", kPath),
      integer_field("chunks", c.chunks, {0, 4096}, "stages of each pipe rank; 0 = as many as the schedule has by itself"),
      text_field("partition", c.partition, "how layers are cut into stages: minmax, profiled, parameters, uniform, deepspeed, type:REGEX or 0,3,5", kBoundaries),
      real_field("memory_limit_gib", c.memory_limit_gib, {.min = 0},
                 "that a rank may hold: weights, gradients, optimizer state, with partition profiled also activations; 0 = no limit"),
      integer_field("activation_checkpoint_layers", c.activation_checkpoint_layers, {0, 4096},
                    "keep activations of every so many layers only, compute the others again; 0 = keep all"),
      integer_field("batch.microbatches", c.batch.microbatches, {1, 65536}, "per replica and step"),
      integer_field("batch.microbatch_size", c.batch.microbatch_size, {1, 65536}, "sequences in one micro-batch"),
      integer_field("batch.sequence_length", c.batch.sequence_length, {1, 1 << 24}, "tokens"),
      choice_field<OptimizerName>("optimizer.name", o.name,
                                  {{"adamw", OptimizerName::kAdamw}, {"sgd", OptimizerName::kSgd}, {"lamb", OptimizerName::kLamb}, {"lars", OptimizerName::kLars}},
                                  "sgd and lars have momentum; lamb and lars scale each parameter's step by its norm, for very large batches"),
      real_field("optimizer.lr", o.lr, kPositive, "peak learning rate"),
      choice_field<LearningRateSchedule>("optimizer.schedule", o.schedule,
                                         {{"cosine", LearningRateSchedule::kCosine},
                                          {"linear", LearningRateSchedule::kLinear},
                                          {"constant", LearningRateSchedule::kConstant},
                                          {"wsd", LearningRateSchedule::kWarmupStableDecay}},
                                         "of the learning rate after warm-up; wsd = constant, then linear in the last part of the run"),
      real_field("optimizer.min_lr_ratio", o.min_lr_ratio, {.min = 0, .max = 1}, "last learning rate / peak"),
      integer_field("optimizer.warmup_steps", o.warmup_steps, {0}, "steps of linear warm-up"),
      real_field("optimizer.decay_fraction", o.decay_fraction, {.min = 0, .max = 1, .min_excluded = true}, "wsd: the last part of the run, in which the rate falls"),
      real_field("optimizer.beta1", o.beta1, kBeta, "decay of the first moment"),
      real_field("optimizer.beta2", o.beta2, kBeta, "decay of the second moment"),
      real_field("optimizer.eps", o.eps, kPositive, "added to the root of the second moment"),
      real_field("optimizer.momentum", o.momentum, kBeta, "sgd, lars: decay of what steps remember of earlier gradients"),
      real_field("optimizer.trust_coefficient", o.trust_coefficient, kPositive, "lars: a parameter's step is this part of its norm"),
      real_field("optimizer.weight_decay", o.weight_decay, {.min = 0}, "of matrices, times the learning rate; adamw and lamb: decoupled"),
      text_list_field("optimizer.decay_groups", o.decay_groups, "[PATTERN=VALUE, …]: weight decay of parameters in whose name the expression is found; the first that fits wins", kPath),
      real_field("optimizer.clip_norm", o.clip_norm, {.min = 0}, "largest norm of the whole gradient; 0 = no clipping"),
      boolean_field("optimizer.shard", o.shard, "older word for `sharding: optimizer`"),
      integer_field("steps", c.steps, {0}, "0 = until max_seconds"),
      real_field("max_seconds", c.max_seconds, {.min = 0}, "training time; 0 = no limit"),
      text_field("device", c.device, "where ranks compute: cpu; cuda, each rank of a machine on its GPU; cuda:N; auto = cuda where there is a GPU", kName),
      choice_field<Precision>("precision", c.precision,
                              {{"auto", Precision::kAuto}, {"fp32", Precision::kFloat32}, {"bf16", Precision::kBfloat16}, {"fp16", Precision::kFloat16}},
                              "of the computation; auto = bf16 where the device has it; fp16 on a GPU, with a scaled loss"),
      real_field("fp16.first_scale", c.fp16.first_scale, {.min = 1, .max = 1e30}, "by which the loss is multiplied; halved when gradients overflow, and the step is skipped"),
      integer_field("fp16.growth_steps", c.fp16.growth_steps, {1}, "steps without an overflow, after which the scale doubles"),
      integer_field("seed", c.seed, {0}, "of weights and data order"),
      integer_field("validation.every_steps", c.validation.every_steps, {0}, "0 = only at the end"),
      integer_field("validation.batches", c.validation.batches, {1}, "micro-batches per replica"),
      integer_field("checkpoint.every_steps", c.checkpoint.every_steps, {0}, "0 = off"),
      integer_field("checkpoint.keep", c.checkpoint.keep, {1}, "newest complete checkpoints that stay"),
      integer_field("checkpoint.keep_best", c.checkpoint.keep_best, {0}, "checkpoints with the lowest validation loss that stay, too"),
      choice_field<BadStepAction>("bad_step.action", c.bad_step.action, {{"stop", BadStepAction::kStop}, {"skip", BadStepAction::kSkip}},
                                  "with a step whose loss or gradient is not finite, or whose loss is a spike; skip = no update, on all ranks"),
      real_field("bad_step.loss_spike", c.bad_step.loss_spike, {.min = 0},
                 "a loss that stands so many standard deviations over the last 128 is a spike; 0 = none is"),
      integer_field("bad_step.max_skips", c.bad_step.max_skips, {1}, "in a row; one more stops the run"),
      choice_field<ExportDtype>("export.dtype", c.model_export.dtype,
                                {{"auto", ExportDtype::kAuto}, {"fp32", ExportDtype::kFloat32}, {"bf16", ExportDtype::kBfloat16}},
                                "of the weights that are written at the end; auto = as in model.path, fp32 for a new model"),
      real_field("bucket_mib", c.bucket_mib, {.min = 0.001, .max = 65536}, "MiB of gradients that are reduced in one go"),
      choice_field<Sharding>("sharding", c.sharding,
                             {{"none", Sharding::kNone}, {"optimizer", Sharding::kOptimizer}, {"gradients", Sharding::kGradients}, {"parameters", Sharding::kParameters}},
                             "what each replica keeps only a part of: ZeRO stages 1, 2 and 3, each with what stands before it"),
      choice_field<UnusedParameters>("unused_parameters", c.unused_parameters, {{"zero", UnusedParameters::kZero}, {"error", UnusedParameters::kError}},
                                     "that get no gradient in a step: their gradient is zero, or the run stops and names one"),
      choice_field<ReduceDtype>("reduce_dtype", c.reduce_dtype, {{"fp32", ReduceDtype::kFloat32}, {"bf16", ReduceDtype::kBfloat16}},
                                "in which gradients travel between hosts; bf16 = half the bytes, what rounding takes is added in the next step"),
      text_field("network.interface", c.network.interface, "on which each rank listens for its peers, e.g. eth1; empty = the one that leads to rank 0", kName),
      text_field("network.hostname", c.network.hostname, "name or address by which the peers reach this machine; empty = found out", kName),
      integer_field("network.master_port", c.network.master_port, {0, 65535}, "where rank 0 is met; 0 = MASTER_PORT of the launcher, or a free one"),
      real_field("network.connect_timeout_seconds", c.network.connect_timeout_seconds, {.min = 0.1, .max = 1e7}, "how long ranks wait for each other at the start"),
      text_field("output", c.output, "the run folder", kPath),
      real_field("timeout_seconds", c.timeout_seconds, {.min = 0.1, .max = 1e7}, "deadline of every wait between ranks"),
      real_field("stuck_step_seconds", c.stuck_step_seconds, {.min = 0, .max = 1e7},
                 "a step that takes longer makes all ranks write RUN/flight and rank 0 say who did not arrive; 0 = half of timeout_seconds"),
      integer_field("omp_threads", c.omp_threads, {1, 1024}, "threads of each rank"),
  };
}

template <typename... Args>
Error wrong(const char* key, fmt::format_string<Args...> format, Args&&... args) {
  return error(Code::kInvalidArgument, "key '{}': {}", key, fmt::format(format, std::forward<Args>(args)...));
}

std::optional<Error> check_required(const TrainConfig& c) {
  const bool shaped = !c.model.path.empty();
  const std::pair<const char*, bool> required[] = {
      {"model.hidden_size", shaped || c.model.hidden_size > 0}, {"model.num_layers", shaped || c.model.num_layers > 0},
      {"model.num_heads", shaped || c.model.num_heads > 0},     {"model.intermediate_size", shaped || c.model.intermediate_size > 0},
      {"data.path", !c.data.paths.empty()},                     {"output", !c.output.empty()},
  };
  for (const auto& [key, given] : required) {
    if (!given) return wrong(key, "required, but not given");
  }
  if (c.steps == 0 && c.max_seconds == 0) return wrong("steps", "expected an integer >= 1, or max_seconds > 0, found neither");
  return std::nullopt;
}

// "--set" values are written as in the file: lists and quoted text are YAML, all else is taken as it stands.
Result<RawValue> parse_assignment(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return error(Code::kInvalidArgument, "--set: expected key=value, found '{}'", assignment.substr(0, 128));
  }
  const std::string_view value = assignment.substr(equals + 1);
  RawValue raw;
  if (!value.empty() && std::string_view("[\"'").find(value.front()) != std::string_view::npos) {
    Result<std::vector<RawValue>> parsed = parse_yaml(fmt::format("value: {}", value), "--set");
    if (!parsed) return parsed.error();
    if (parsed->size() != 1) return error(Code::kInvalidArgument, "--set: expected one value, found '{}'", value.substr(0, 128));
    raw = parsed->front();
  } else {
    raw.items = {std::string(value)};
  }
  raw.key = assignment.substr(0, equals);
  raw.line = 0;
  return raw;
}

}  // namespace

Result<std::vector<DecayGroup>> parse_decay_groups(const std::vector<std::string>& texts) {
  std::vector<DecayGroup> groups;
  for (const std::string& text : texts) {
    const size_t equals = text.rfind('=');
    double value = 0;
    const char* end = text.data() + text.size();
    const bool number = equals != std::string::npos && equals > 0 && std::from_chars(text.data() + equals + 1, end, value).ptr == end && equals + 1 < text.size();
    if (!number || !(value >= 0 && value < 1e6)) return error(Code::kInvalidArgument, "expected PATTERN=VALUE with a number >= 0, found '{}'", shown(text));
    if (equals > kMaxDecayExpression) return error(Code::kInvalidArgument, "expected a regular expression of at most {} bytes, found {}", kMaxDecayExpression, equals);
    try {
      (void)std::regex(text.substr(0, equals), kDecayExpression);
    } catch (const std::regex_error& e) {
      return error(Code::kInvalidArgument, "'{}' is not a regular expression: {}", shown(text.substr(0, equals)), e.what());
    }
    groups.push_back({text.substr(0, equals), value});
  }
  return groups;
}

std::optional<Error> apply_override(TrainConfig& config, std::string_view assignment) {
  Result<RawValue> raw = parse_assignment(assignment);
  if (!raw) return raw.error();
  Result<Filled> filled = fill(fields_of(config), {*raw}, "--set");
  if (!filled) return filled.error();
  return std::nullopt;
}

namespace {

// Of a new model; that of a directory is checked where the directory is read.
std::optional<Error> check_shape(const TrainConfig& c) {
  const TrainModelConfig& m = c.model;
  if (m.hidden_size % m.num_heads != 0)
    return wrong("model.num_heads", "expected a divisor of hidden_size {}, found {}", m.hidden_size, m.num_heads);
  if (m.hidden_size / m.num_heads % 2 != 0) {
    return wrong("model.num_heads", "hidden_size / num_heads must be even for the rotary embedding, found {} / {}", m.hidden_size,
                 m.num_heads);
  }
  const int kv_heads = m.num_kv_heads > 0 ? m.num_kv_heads : m.num_heads;
  if (m.num_heads % kv_heads != 0)
    return wrong("model.num_kv_heads", "expected a divisor of num_heads {}, found {}", m.num_heads, kv_heads);
  if (kv_heads % c.mesh.tensor != 0) {
    return wrong("mesh.tensor", "expected a divisor of num_heads {} and num_kv_heads {}, found {}", m.num_heads, kv_heads, c.mesh.tensor);
  }
  const int longest = m.max_position_embeddings > 0 ? m.max_position_embeddings : c.batch.sequence_length;
  if (c.batch.sequence_length > longest) {
    return wrong("batch.sequence_length", "expected at most model.max_position_embeddings {}, found {}", longest, c.batch.sequence_length);
  }
  const int num_layers = m.num_layers + 2;  // with the embedding and the head
  if (c.mesh.pipe > num_layers) {
    return wrong("mesh.pipe", "expected at most {} stages, one for each block, the embedding and the head, found {}", num_layers,
                 c.mesh.pipe);
  }
  return std::nullopt;
}

bool is_device(const std::string& name) {
  constexpr std::string_view kNumbered = "cuda:";
  if (!name.starts_with(kNumbered)) return name == "auto" || name == "cpu" || name == "cuda";
  const std::string number = name.substr(kNumbered.size());
  return !number.empty() && number.size() < 4 && std::ranges::all_of(number, [](unsigned char c) { return std::isdigit(c) != 0; });
}

// Keys that must fit each other, whatever the model.
std::optional<Error> check_fit(const TrainConfig& c) {
  if (!is_device(c.device)) return wrong("device", "expected auto, cpu, cuda or cuda:N, found '{}'", c.device);
  if (c.reduce_dtype == ReduceDtype::kBfloat16 && (c.sharding == Sharding::kGradients || c.sharding == Sharding::kParameters)) {
    return wrong("reduce_dtype", "expected fp32 with sharding of gradients or parameters, whose reductions are not rounded, found bf16");
  }
  if (!c.network.interface.empty() && !c.network.hostname.empty()) {
    return wrong("network.hostname", "expected nothing, as network.interface '{}' is given, found '{}'", c.network.interface, c.network.hostname);
  }
  if (c.data.format == TextFormat::kChat && c.data.packing == DataPacking::kStream) {
    return wrong("data.packing", "conversations (data.format chat) are kept apart: expected whole or document, found stream");
  }
  return std::nullopt;
}

constexpr std::string_view kShapeKeys[] = {"model.hidden_size",        "model.num_layers",  "model.num_heads",
                                           "model.num_kv_heads",       "model.intermediate_size", "model.max_position_embeddings",
                                           "model.rope_theta",         "model.rms_norm_eps",      "model.tie_word_embeddings"};

bool is_shape_key(std::string_view key) { return std::ranges::find(kShapeKeys, key) != std::end(kShapeKeys); }

}  // namespace

std::optional<Error> check_train_config(const TrainConfig& c) {
  if (auto missing = check_required(c)) return missing;
  if (const auto groups = parse_decay_groups(c.optimizer.decay_groups); !groups) return wrong("optimizer.decay_groups", "{}", groups.error().message());
  if (auto unfit = check_fit(c)) return unfit;
  return c.model.path.empty() ? check_shape(c) : std::nullopt;
}

Result<TrainConfig> parse_train_config(std::string_view yaml, const std::string& file, const std::vector<std::string>& overrides) {
  Result<std::vector<RawValue>> values = parse_yaml(yaml, file);
  if (!values) return values.error();
  TrainConfig config;
  Result<Filled> filled = fill(fields_of(config), *values, file);
  if (!filled) return filled.error();
  for (const std::string& assignment : overrides) {
    if (auto problem = apply_override(config, assignment)) return *problem;
  }
  if (auto problem = check_train_config(config)) {
    // The line of the key that the message names is not known when it is missing or was overridden; the file's name always helps.
    return error(problem->code(), "{}: {}", file, problem->message());
  }
  if (std::exchange(config.optimizer.shard, false) && config.sharding == Sharding::kNone) config.sharding = Sharding::kOptimizer;
  if (!config.model.path.empty()) {
    std::set<std::string> given;
    for (const auto& [key, line] : filled->lines) given.insert(key);
    for (const std::string& assignment : overrides) given.insert(assignment.substr(0, assignment.find('=')));
    std::ranges::copy_if(given, std::back_inserter(config.model.given), is_shape_key);
    return config;
  }
  if (config.model.num_kv_heads == 0) config.model.num_kv_heads = config.model.num_heads;
  if (config.model.max_position_embeddings == 0) config.model.max_position_embeddings = config.batch.sequence_length;
  return config;
}

Result<TrainConfig> load_train_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  std::error_code absent;
  const auto status = std::filesystem::status(path, absent);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    return error(Code::kInvalidArgument, "{} is {}; expected a file, as each rank reads it again", path.string(), std::filesystem::is_directory(status) ? "a folder" : "a pipe or a device");
  }
  Result<std::string> text = read_file(path, kConfigFileLimit);
  if (!text) return text.error();
  return parse_train_config(*text, path.string(), overrides);
}

std::vector<std::pair<std::string, std::string>> key_values(const TrainConfig& config) {
  TrainConfig copy = config;
  std::vector<std::pair<std::string, std::string>> values;
  for (const Field& field : fields_of(copy)) values.emplace_back(field.key, field.print());
  return values;
}

std::string to_yaml(const TrainConfig& config) {
  TrainConfig copy = config;
  std::vector<Field> fields = fields_of(copy);
  // The shape of a directory stands in the directory.
  const std::vector<std::string>& given = config.model.given;
  if (!config.model.path.empty()) std::erase_if(fields, [&](const Field& f) { return is_shape_key(f.key) && std::ranges::find(given, f.key) == given.end(); });
  return print_yaml(fields);
}

}  // namespace penstock::config
