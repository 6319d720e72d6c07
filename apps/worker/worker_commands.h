#pragma once
// What a worker process does: one rank of a training job, or one rank of a serving group.
#include <string>
#include <vector>

namespace penstock {

// Exit code of a rank that leaves because another one failed.
inline constexpr int kPeerFailed = 75;

struct TrainRankOptions {
  std::string config_file;
  std::vector<std::string> overrides;  // "key=value"
  bool resume = false;
  bool auto_resume = false;
  bool overwrite = false;
  bool quiet = false;
  bool shared_log = false;  // what the ranks of this machine print comes together in one place
};

// Returns the exit code. Prints what went wrong on stderr.
int run_train_rank(const TrainRankOptions& options);

struct OverlapRankOptions {
  std::string config_file;
  std::vector<std::string> overrides;
  double link_gigabytes = 0;  // per second, of the emulated link between replicas; 0 = as the network is
  double link_latency_us = 0;
  int steps = 12;
};
int run_overlap_rank(const OverlapRankOptions& options);

struct ServeRankOptions {
  std::string model;       // a Hugging Face directory, a GGUF file or a folder with one
  std::string socket;      // rank 0 listens here
  int max_concurrent = 8;
  int max_sequence_tokens = 0;  // 0 = the model's
  std::string dtype = "auto";   // auto, fp32, bf16
  std::string device = "auto";  // auto, cpu, cuda
  int kv_cache_mb = 0;          // MiB for keys and values; 0 = by itself
  std::string kv_cache_dtype = "auto";  // fp32, bf16; auto = fp32
  std::string quantization = "none";  // auto, none, int8, int4
  int tensor_ranks = 1;  // that share each layer; the group's ranks are as many stages of so many
};
int run_serve_rank(const ServeRankOptions& options);

struct BenchRankOptions {
  std::string work;                // prefill, decode
  std::string model;               // a preset's name, or a config.json or its folder
  std::string precision = "auto";  // auto, fp32, bf16, int8, int4
  std::string device = "cpu";      // cpu, cuda
  int batch = 1;
  int prompt = 64;
  int repeats = 16;
};
// Random weights; prints what was measured.
int run_bench_rank(const BenchRankOptions& options);

}  // namespace penstock
