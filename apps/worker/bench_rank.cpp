// `penstock bench prefill|decode`: one stage that holds a whole model of random weights, driven step by step.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <iostream>

#include "apps/worker/rank_setup.h"
#include "apps/worker/worker_commands.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/temp_dir.h"
#include "engine/lone_steps.h"
#include "engine/stage_runner.h"
#include "kernels/float_product.h"
#include "kernels/memory_bandwidth.h"
#include "kernels/parallel.h"
#include "kernels/quantized_product.h"
#include "model/families.h"
#include "tensor/cpu_features.h"
#include "tensor/device.h"

namespace penstock {
namespace {

constexpr int kStepRows = 512;                    // of a prompt in one step, as the engine cuts it
constexpr int64_t kMeasuredMemory = 512 << 20;    // read for the bandwidth
constexpr double kBandwidthSeconds = 0.5;

// Shapes of well-known models.
struct Shape {
  const char* name;
  const char* config;
};
constexpr Shape kShapes[] = {
    {"1b", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
               "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": false})"},
    {"135m", R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                 "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})"},
};

std::string config_text(const std::string& model) {
  for (const Shape& shape : kShapes) {
    if (model == shape.name) return shape.config;
  }
  const std::filesystem::path path = std::filesystem::is_directory(model) ? std::filesystem::path(model) / "config.json" : std::filesystem::path(model);
  return read_file(path, 1 << 20).value();
}

// A few hundred rows of noise, over and over: drawing a billion numbers would take longer than the measurement.
void fill_with_noise(model::Parameter& parameter) {
  const at::NoGradGuard no_grad;
  at::Tensor& value = parameter.value;
  if (value.dim() < 2) {
    value.fill_(parameter.init_constant);
    return;
  }
  const int64_t rows = std::min<int64_t>(value.size(0), 256);
  const at::Tensor noise = at::randn({rows, value.size(1)}) * 0.02;
  for (int64_t first = 0; first < value.size(0); first += rows) {
    const int64_t count = std::min(rows, value.size(0) - first);
    value.narrow(0, first, count).copy_(noise.narrow(0, 0, count));
  }
}

bool computes_in_bf16(const BenchRankOptions& options) {
  return options.precision == "bf16" || (options.precision == "auto" && (options.device != "cpu" || tensor::has_bf16()));
}

engine::StageOptions stage_options(const BenchRankOptions& options, const std::filesystem::path& folder) {
  engine::StageOptions stage;
  stage.model = folder;
  stage.max_sequences = options.batch;
  stage.device = tensor::find_device(options.device, 0).value();
  stage.compute = computes_in_bf16(options) ? kernels::Compute::kBf16 : kernels::Compute::kFp32;
  if (options.precision.starts_with("int")) stage.quantization = model::quantization(options.precision);
  stage.max_sequence_tokens = options.prompt + (options.work == "decode" ? options.repeats + 1 : 1);
  stage.weights = fill_with_noise;
  return stage;
}

// Times of steps, sorted.
struct Times {
  std::vector<double> seconds;
  [[nodiscard]] double at(double share) const { return seconds[static_cast<size_t>(share * static_cast<double>(seconds.size() - 1))]; }
};

// Sequence s has the slot s and pages of its own for its whole length.
class Bench {
 public:
  Bench(engine::StageRunner& runner, const BenchRankOptions& options)
      : runner_(runner), options_(options), pages_((runner.max_sequence_tokens() + kernels::kPageTokens - 1) / kernels::kPageTokens) {
    runner_.make_cache(options.batch * pages_);
  }

  // Of whole prompts, one after the other.
  [[nodiscard]] Times prefill() {
    prompt(0);
    Times times;
    for (int i = 0; i < options_.repeats; ++i) {
      const auto start = Clock::now();
      prompt(0);
      times.seconds.push_back(to_seconds(Clock::now() - start));
    }
    std::ranges::sort(times.seconds);
    return times;
  }

  // Of steps with one token of each sequence.
  [[nodiscard]] Times decode() {
    for (int s = 0; s < options_.batch; ++s) prompt(s);
    Times times;
    for (int i = 0; i < options_.repeats; ++i) {
      engine::StepPlan plan{engine::StepKind::kCompute, {}};
      for (int s = 0; s < options_.batch; ++s) plan.sequences.push_back(engine::lone_step(s, options_.prompt + i, 1, true, options_.batch, pages_));
      const auto start = Clock::now();
      step(plan);
      times.seconds.push_back(to_seconds(Clock::now() - start));
    }
    std::ranges::sort(times.seconds);
    return times;
  }

 private:
  // Begins the sequence anew.
  void prompt(int slot) {
    for (int first = 0; first < options_.prompt; first += kStepRows) {
      const int count = std::min(kStepRows, options_.prompt - first);
      auto part = engine::lone_step(slot, first, count, first + count == options_.prompt, options_.batch, pages_);
      step({engine::StepKind::kCompute, {std::move(part)}});
    }
  }
  void step(const engine::StepPlan& plan) {
    const at::Tensor ids = at::arange(plan.rows(), at::kLong).remainder(runner_.config().vocab_size);
    const at::Tensor logits = runner_.forward(plan, ids);
    (void)runner_.sample(plan, logits);
  }

  engine::StageRunner& runner_;
  const BenchRankOptions& options_;
  const int pages_;  // of a sequence
};

// What one step reads of the weights: all but an input table that is not the head as well.
int64_t bytes_of_a_step(const engine::StageRunner& runner) {
  const auto& config = runner.config();
  const double table = config.tie_word_embeddings ? 0 : static_cast<double>(config.vocab_size * config.hidden_size);
  const double parameters = static_cast<double>(model::num_parameters(config));
  return static_cast<int64_t>(static_cast<double>(runner.weight_bytes()) * (1 - table / parameters));
}

const char* instruction_set(const BenchRankOptions& options) {
  if (options.precision.starts_with("int")) return kernels::quantized_instruction_set();
  return computes_in_bf16(options) ? kernels::bf16_instruction_set() : kernels::float_instruction_set();
}

std::string place_of(const BenchRankOptions& options) {
  return options.device == "cpu" ? fmt::format("{} thread(s), {}", at::get_num_threads(), instruction_set(options)) : options.device;
}

void print(const BenchRankOptions& options, const engine::StageRunner& runner, const Times& times, double bandwidth) {
  const double parameters = static_cast<double>(model::num_parameters(runner.config())), weights = static_cast<double>(runner.weight_bytes());
  fmt::print("{}: {:.3f} B parameters, {}, {}\n", options.model, parameters * 1e-9, options.precision, place_of(options));
  fmt::print("  weights              {:.3f} GB, {:.3f} bytes per weight\n", weights * 1e-9, weights / parameters);
  const double median = times.at(0.5);
  if (options.work == "prefill") {
    fmt::print("  prefill              {:.1f} tokens/s: {} tokens in {:.1f} ms (median of {}; {:.1f} to {:.1f})\n", options.prompt / median, options.prompt,
               median * 1e3, options.repeats, times.at(0) * 1e3, times.at(1) * 1e3);
    return;
  }
  const double read = static_cast<double>(bytes_of_a_step(runner)) / median;
  fmt::print("  decode               {:.1f} tokens/s: {} sequence(s) after {} tokens, {:.2f} ms a step (median of {}; {:.2f} to {:.2f})\n", options.batch / median,
             options.batch, options.prompt, median * 1e3, options.repeats, times.at(0) * 1e3, times.at(1) * 1e3);
  if (bandwidth > 0) fmt::print("  weights read         {:.1f} GB/s of {:.1f} measured: {:.0f} %\n", read * 1e-9, bandwidth * 1e-9, 100 * read / bandwidth);
  else fmt::print("  weights read         {:.1f} GB/s\n", read * 1e-9);
}

double bandwidth() {
  kernels::ThreadTeam team(at::get_num_threads());
  const kernels::TeamScope scope(team);
  return kernels::measure_read_bandwidth(kMeasuredMemory, kBandwidthSeconds);
}

}  // namespace

int run_bench_rank(const BenchRankOptions& options) {
  try {
    const TempDir folder;
    write_file_atomic(folder.path() / "config.json", config_text(options.model));
    const bool decodes = options.work == "decode", measures = decodes && options.device == "cpu";  // the bandwidth of the processor's memory
    const double before = measures ? bandwidth() : 0;
    engine::StageRunner runner(stage_options(options, folder.path()));
    Bench bench(runner, options);
    const Times times = decodes ? bench.decode() : bench.prefill();
    print(options, runner, times, measures ? std::max(before, bandwidth()) : 0);
    return 0;
  } catch (const Error& e) {
    std::cerr << fmt::format("penstock bench {}: {}\n", options.work, e.message());
    return exit_code_of(e);
  }
}

}  // namespace penstock
