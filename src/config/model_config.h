#pragma once
// TorchServe's model-config.yaml: how many workers a model gets, on which devices, split how.
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace penstock::config {

enum class DeviceType { kAuto, kCpu, kGpu };                            // auto = GPU where there is one
enum class ParallelType { kNone, kPipeline, kTensor, kBoth, kCustom };  // none, pp, tp, pptp, custom
enum class ComputeType { kAuto, kFloat32, kBfloat16 };                  // auto = bfloat16 on a GPU, and where the processor computes in it
enum class HandlerDevice { kAuto, kCpu, kCuda };                        // auto = a GPU where the worker has one
enum class ToolCallParser { kAuto, kNone, kHermes, kLlama3Json, kMistral };  // auto = as the model's chat template shows
enum class Quantization { kAuto, kNone, kInt8, kInt4 };                 // what the weights are rounded to while they are loaded; auto = as the file has them

struct TorchrunConfig {
  int nnodes = 1;          // machines that a worker group's ranks are on; the front door's is the first
  int nproc_per_node = 0;  // ranks of a worker group on each of them; 0 = not given
  int omp_num_threads = 0; // OMP_NUMBER_THREADS: threads of each rank, and on CPU its cores; 0 = not given: 1, on any core
  std::string rdzv_host = {};  // rdzv-endpoint: this machine's name for the others, where rank 0 listens; empty = not given
  int rdzv_port = 0;       // 0 = any free one
};

struct HandlerConfig {
  std::string name;                  // `handler: NAME` in place of a map; empty = not given
  std::filesystem::path model_path;  // the Hugging Face directory; the model folder itself where the file names none.
                                     // In the file relative to the model folder, here as the program can open it.
  int max_sequence_tokens = 0;       // prompt and completion together; 0 = what the model allows
  int max_concurrent = 8;            // sequences that one worker group generates at once
  HandlerDevice device = HandlerDevice::kAuto;
  ComputeType dtype = ComputeType::kAuto;
  Quantization quantization = Quantization::kNone;  // to what weights are rounded, `dtype` does not matter
  int tensor_ranks = 0;              // with pptp: ranks that share each layer; 0 = not given
  int kv_cache_mb = 0;               // MiB of each rank for keys and values; 0 = by itself (engine/kv_budget.h)
  ComputeType kv_cache_dtype = ComputeType::kAuto;  // that they are kept in; auto = fp32
  bool generation_config = true;     // OpenAI's requests take from the model's generation_config.json what they do not say
  ToolCallParser tool_call_parser = ToolCallParser::kAuto;  // how the model's texts call tools
  bool retry = false;                // generations that lose their worker group go on with the next one (frontend/job_queue.h)
};

// Requests that belong together and run one after another (frontend/sequence_table.h).
struct SequenceConfig {
  bool batching = false;             // sequenceBatching: requests without a sequence id get one
  milliseconds max_idle{0};          // sequenceMaxIdleMSec; 0 = not given: as the response timeout
  milliseconds max_life{0};          // sequenceTimeoutMSec; 0 = no limit
  int max_waiting = 1;               // maxSequenceJobQueueSize
  int max_sequences = 1;             // maxNumSequence
};

// What may be said of a model in several places: config.properties (weakest), model-config.yaml, the management API (strongest).
struct ModelSettings {
  std::optional<int> min_workers;
  std::optional<int> max_workers;
  std::optional<int> batch_size;
  std::optional<int> max_batch_delay_ms;
  std::optional<seconds> response_timeout;
  std::optional<seconds> startup_timeout;
};

struct ModelConfig {
  int min_workers = 0;               // 0 = not given: the server's default_workers_per_model
  int max_workers = 0;               // 0 = not given: as min_workers
  milliseconds scale_up_after{2000};   // scaleUpAfterMSec: requests have waited for so long: a worker more
  milliseconds scale_down_after{60000};  // scaleDownAfterMSec: one worker would not have been missed for so long: one less
  std::optional<int> batch_size;     // absent = 1; requests that one call of the handler takes; not for `llm`, which makes batches anew at every token
  std::optional<int> max_batch_delay_ms;  // absent = 100; how long a batch waits to be full
  std::optional<seconds> response_timeout;  // absent = the server's default_response_timeout
  std::optional<seconds> startup_timeout;   // absent = the server's default_startup_timeout
  DeviceType device_type = DeviceType::kAuto;
  std::vector<int> device_ids;       // empty = all
  ParallelType parallel_type = ParallelType::kNone;
  int parallel_level = 0;            // 0 = not given
  TorchrunConfig torchrun;
  int job_queue_size = 0;            // 0 = the server's job_queue_size
  milliseconds client_timeout{0};    // longest life of a request, waiting included; 0 = no limit
  bool use_job_ticket = false;       // a request is refused unless a worker is free at once
  seconds max_retry_timeout{300};    // a worker that keeps failing is restarted for so long
  SequenceConfig sequences;          // without batching, only `batching` counts
  HandlerConfig handler;

  std::vector<std::string> notes;    // keys that were given and do nothing, and why: one line each, to be logged

  // GPUs of one worker group on each of its machines: parallelLevel, or torchrun's nproc-per-node, or 1.
  [[nodiscard]] int devices_per_host() const;
  // Its processes there: one for each GPU, but one for all of them with parallelType custom.
  [[nodiscard]] int ranks_per_host() const;
  // All its processes.
  [[nodiscard]] int num_ranks() const;
  // Those that share each layer: with tp all, with pptp handler.tensor_ranks, or else those of one machine; 1 with others.
  [[nodiscard]] int tensor_ranks() const;
  // tp, pptp: each process has a part of every layer (of its stage), so every request goes to all of them.
  [[nodiscard]] bool divides_layers() const { return parallel_type == ParallelType::kTensor || parallel_type == ParallelType::kBoth; }

  // Takes what stands in `weaker` for keys that are not given, and all that stands in `stronger`.
  void fill_gaps(const ModelSettings& weaker);
  void override_with(const ModelSettings& stronger);
};

// Reads a model-config.yaml. Every key of TorchServe is known and its type is checked, also of those that do nothing. Errors: kNotFound; kInvalidArgument "FILE:LINE: key 'a.b': expected ..., found ...", unknown keys with the
// nearest known one.
[[nodiscard]] Result<ModelConfig> load_model_config(const std::filesystem::path& file);

// The model-config.yaml of a model folder; all defaults when the folder has none. kNotFound when there is no such folder.
[[nodiscard]] Result<ModelConfig> load_model_folder_config(const std::filesystem::path& folder);

}  // namespace penstock::config
