#pragma once
// What `penstock train` is told: one tree of structs, read once, checked once, printed whole at the start.
// Keys, ranges and the comments that users see stand in train_config.cpp, one line a key.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace penstock::config {

enum class Precision { kAuto, kFloat32, kBfloat16, kFloat16 };  // auto = bfloat16 where the device computes in it

// A new Llama model of this shape, or with `path` the model of a Hugging Face directory, whose shape it then has.
struct TrainModelConfig {
  int hidden_size = 0;              // required
  int num_layers = 0;               // required
  int num_heads = 0;                // required
  int num_kv_heads = 0;             // 0 in the file = num_heads; never 0 after loading
  int intermediate_size = 0;        // required
  int max_position_embeddings = 0;  // tokens; 0 in the file = batch.sequence_length; never 0 after loading
  double rope_theta = 10000;
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = true;
  std::string path;                 // a Hugging Face directory to start from; empty = a new model
  std::vector<std::string> given;   // with `path`: keys of the shape that were given all the same, and must agree with the directory

  bool operator==(const TrainModelConfig&) const = default;
};

enum class TextFormat {
  kAuto,   // JSON lines where a file's name ends in .jsonl or .ndjson, else text
  kText,   // documents between separator lines
  kJsonl,  // a JSON object a line, whose text is under a key
  kChat,   // a JSON object a line, with the "messages" of a conversation
};
enum class DataPacking { kStream, kDocument, kWhole };  // as data::Packing

struct TrainDataConfig {
  std::vector<std::string> paths;             // required; files, folders whose files are all read, or one prepared folder. Key `path`
  std::vector<std::string> validation_paths;  // held out whole, instead of a share of `paths`. Key `validation_path`
  TextFormat format = TextFormat::kAuto;
  std::string text_key = "text";              // of JSON lines
  std::string separator = "%";                // a line of just this cuts documents; empty = one document a file
  double validation_fraction = 0.1;           // of the documents, held out
  DataPacking packing = DataPacking::kStream;
};

struct MeshConfig {
  int data = 1;  // replicas
  int pipe = 1;  // stages
  int tensor = 1;  // ranks that share each layer of a stage
};

struct BatchConfig {
  int microbatches = 4;       // per replica and step
  int microbatch_size = 4;    // sequences in one micro-batch
  int sequence_length = 128;  // tokens
};

enum class OptimizerName { kAdamw, kSgd, kLamb, kLars };
enum class LearningRateSchedule { kCosine, kLinear, kConstant, kWarmupStableDecay };

// Parameters whose name an expression (ECMAScript) is found in.
struct DecayGroup {
  std::string pattern;
  double weight_decay = 0;
};

struct OptimizerConfig {
  OptimizerName name = OptimizerName::kAdamw;
  double lr = 1e-3;           // peak learning rate
  LearningRateSchedule schedule = LearningRateSchedule::kCosine;
  double min_lr_ratio = 0.1;  // last learning rate / peak
  int warmup_steps = 0;
  double decay_fraction = 0.2;  // warm-up-stable-decay: the last part of the run, in which the rate falls
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double momentum = 0.9;              // sgd, lars
  double trust_coefficient = 0.001;   // lars
  double weight_decay = 0.1;
  std::vector<std::string> decay_groups;  // "PATTERN=VALUE", the first that fits wins
  double clip_norm = 1.0;     // of the whole gradient; 0 = no clipping
  bool shard = false;         // older files' word for sharding: optimizer; false after loading
};

inline constexpr auto kDecayExpression = std::regex::ECMAScript | std::regex_constants::__polynomial;  // no backtracking

// Error kInvalidArgument: no '=', an expression or a number that is none.
[[nodiscard]] Result<std::vector<DecayGroup>> parse_decay_groups(const std::vector<std::string>& texts);

struct ValidationConfig {
  int every_steps = 50;  // 0 = only at the end
  int batches = 8;       // micro-batches per replica
};

// The loss's scale with precision fp16.
struct Fp16Config {
  double first_scale = 65536;
  int growth_steps = 2000;  // without an overflow, after which it doubles
};

enum class BadStepAction { kStop, kSkip };

// A step whose loss or gradient is not finite, or whose loss is a spike.
struct BadStepConfig {
  BadStepAction action = BadStepAction::kStop;
  double loss_spike = 0;  // standard deviations over the last losses; 0 = no loss is a spike
  int max_skips = 10;     // in a row
};

// What each replica keeps a part of only (ZeRO stages 1, 2 and 3), each with what stands before it.
enum class Sharding { kNone, kOptimizer, kGradients, kParameters };

// What becomes of a parameter that got no gradient in a step, as a branch of the model was not taken.
enum class UnusedParameters { kZero, kError };

struct CheckpointConfig {
  int every_steps = 0;  // 0 = off
  int keep = 2;         // newest complete checkpoints that stay
  int keep_best = 0;    // and those with the lowest validation loss
};

enum class ExportDtype { kAuto, kFloat32, kBfloat16 };

// How the trained model is written.
struct ExportConfig {
  ExportDtype dtype = ExportDtype::kAuto;  // of the weights; auto = as those of model.path, fp32 for a new model
};

enum class ReduceDtype { kFloat32, kBfloat16 };

// How the ranks find each other, beyond what their launcher says.
struct NetworkConfig {
  std::string interface;  // on which each rank listens; empty = the one that leads to rank 0
  std::string hostname;   // this machine's name or address for the others; empty = found out
  int master_port = 0;    // of rank 0's store; 0 = as the launcher says, or a free one
  double connect_timeout_seconds = 120;  // for all ranks to be there
};

struct TrainConfig {
  TrainModelConfig model;
  TrainDataConfig data;
  MeshConfig mesh;
  std::string schedule = "1f1b";     // of the pipeline's actions: a name, or a CSV file
  int chunks = 0;                    // stages per rank; 0 = the schedule's own number
  std::string partition = "minmax";  // how layers are cut into stages
  double memory_limit_gib = 0;       // that a rank may hold; 0 = no limit
  int activation_checkpoint_layers = 0;  // > 0: keep the activations of every so many layers only, compute the others again
  BatchConfig batch;
  OptimizerConfig optimizer;
  int steps = 0;            // 0 = until max_seconds
  double max_seconds = 0;   // 0 = no limit; one of the two is required
  std::string device = "auto";  // where ranks compute: auto, cpu, cuda or cuda:N, as tensor/device.h
  Precision precision = Precision::kAuto;
  Fp16Config fp16;
  int64_t seed = 1;
  ValidationConfig validation;
  CheckpointConfig checkpoint;
  BadStepConfig bad_step;
  ExportConfig model_export;  // keys `export`
  double bucket_mib = 1;    // gradients reduced in one go
  Sharding sharding = Sharding::kNone;
  UnusedParameters unused_parameters = UnusedParameters::kZero;
  ReduceDtype reduce_dtype = ReduceDtype::kFloat32;  // in which gradients travel between hosts
  NetworkConfig network;
  std::string output;       // required; the run folder
  double timeout_seconds = 60;  // deadline of every wait between ranks
  double stuck_step_seconds = 0;  // a step that takes longer makes all ranks write down what they do; 0 = half of timeout_seconds
  int omp_threads = 1;      // of each rank

  [[nodiscard]] int world_size() const { return mesh.data * mesh.pipe * mesh.tensor; }
};

// Reads a file, applies the overrides ("batch.microbatches=8") in order, then checks the whole.
// Errors: kNotFound; kInvalidArgument "FILE:LINE: key 'a.b': expected an integer >= 1, found 'abc'" (for an override "--set: key ...").
[[nodiscard]] Result<TrainConfig> load_train_config(const std::filesystem::path& file, const std::vector<std::string>& overrides = {});
[[nodiscard]] Result<TrainConfig> parse_train_config(std::string_view yaml, const std::string& file,
                                                     const std::vector<std::string>& overrides = {});

// Sets one key from "key=value", the value as it would stand in the file ("data.path=[a, b]"). Checks the key's own range only.
// nullopt when done; an Error leaves `config` unchanged.
[[nodiscard]] std::optional<Error> apply_override(TrainConfig& config, std::string_view assignment);

// What no single key can tell: required keys, and keys that must fit each other. nullopt when all is well.
[[nodiscard]] std::optional<Error> check_train_config(const TrainConfig& config);

// Every key with its value as YAML, to compare two configurations by.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> key_values(const TrainConfig& config);

// The whole tree as YAML with a comment for each key; parse_train_config reads the same values back.
[[nodiscard]] std::string to_yaml(const TrainConfig& config);

}  // namespace penstock::config
