// What a served model thinks of a text: perplexity with its weights in one form after the other (docs/benchmarks.md, "Quantized weights").
//
//   perplexity MODEL TEXT                   all forms
//   perplexity MODEL TEXT --forms bf16,int4 --windows 4
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <optional>
#include <span>

#include "base/file.h"
#include "engine/lone_steps.h"
#include "engine/stage_runner.h"
#include "text/tokenizer.h"

namespace penstock {
namespace {

struct Options {
  std::string model;
  std::string text;
  std::vector<std::string> forms = {"fp32", "bf16", "auto", "int8", "int4"};
  int window = 512;  // tokens of a text of its own
  int windows = 8;
};

constexpr int kStepRows = 32;  // rows of logits at once: they are as wide as the vocabulary

engine::StageOptions stage_options(const Options& options, const std::string& form) {
  engine::StageOptions stage;
  stage.model = options.model;
  stage.max_sequences = 1;
  stage.max_sequence_tokens = options.window;
  const bool is_float = form == "fp32" || form == "bf16";
  stage.compute = form == "fp32" ? kernels::Compute::kFp32 : kernels::Compute::kBf16;
  stage.quantization = model::quantization(is_float ? "none" : form);
  return stage;
}

// The sum of −log p of all tokens of a window but the first.
double surprise(engine::StageRunner& runner, std::span<const int32_t> ids, int pages) {
  double sum = 0;
  const int count = static_cast<int>(ids.size()) - 1;
  for (int first = 0; first < count; first += kStepRows) {
    const int rows = std::min(kStepRows, count - first);
    auto step = engine::lone_step(0, first, rows, false, 1, pages);
    const auto part = ids.subspan(static_cast<size_t>(first), static_cast<size_t>(rows)), next = ids.subspan(static_cast<size_t>(first) + 1, static_cast<size_t>(rows));
    step.targets.assign(next.begin(), next.end());
    const at::Tensor logits = runner.forward({engine::StepKind::kCompute, {step}}, at::tensor(std::vector<int64_t>(part.begin(), part.end()), at::kLong));
    const at::Tensor targets = at::tensor(std::vector<int64_t>(next.begin(), next.end()), at::kLong);
    sum -= at::log_softmax(logits.to(at::kDouble), -1).gather(1, targets.unsqueeze(1)).sum().item<double>();
  }
  return sum;
}

double loss(const Options& options, const std::string& form, std::span<const int32_t> ids) {
  engine::StageRunner runner(stage_options(options, form));
  const int pages = engine::pages_for(options.window);
  runner.make_cache(pages);
  double sum = 0;
  for (size_t first = 0; first < ids.size(); first += static_cast<size_t>(options.window)) sum += surprise(runner, ids.subspan(first, static_cast<size_t>(options.window)), pages);
  const double count = static_cast<double>(ids.size()) / options.window * (options.window - 1);
  fmt::print("{:<5} {:6.3f} GB of weights, perplexity {:8.4f}", form, static_cast<double>(runner.weight_bytes()) * 1e-9, std::exp(sum / count));
  return sum / count;
}

void run(const Options& options) {
  const text::Tokenizer tokenizer = text::Tokenizer::load(options.model).value();
  std::vector<int32_t> ids = tokenizer.encode(read_file(options.text, 64 << 20).value());
  const size_t needed = static_cast<size_t>(options.window) * static_cast<size_t>(options.windows);
  if (ids.size() < needed) throw error(Code::kInvalidArgument, "{}: expected at least {} tokens, found {}; use fewer or shorter windows", options.text, needed, ids.size());
  ids.resize(needed);
  fmt::print("{} windows of {} tokens, from the beginning of {}\n", options.windows, options.window, options.text);
  std::optional<double> base;
  for (const std::string& form : options.forms) {
    const double found = loss(options, form, ids);
    if (form == "bf16") base = found;
    if (base) fmt::print(" ({:+.2f} % of bf16's)", 100 * std::expm1(found - *base));
    fmt::print("\n");
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  penstock::Options options;
  CLI::App app{"Perplexity of a text under a model, with its weights in one form after the other"};
  app.add_option("model", options.model, "A Hugging Face directory or a GGUF file")->required();
  app.add_option("text", options.text, "A file of text")->required();
  app.add_option("--forms", options.forms, "Of the weights: fp32, bf16, auto (as stored), int8, int4")->delimiter(',')->check(CLI::IsMember({"fp32", "bf16", "auto", "int8", "int4"}));
  app.add_option("--window", options.window, "Tokens that follow on one another")->check(CLI::Range(2, 100000))->capture_default_str();
  app.add_option("--windows", options.windows, "How many")->check(CLI::Range(1, 100000))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    penstock::run(options);
    return 0;
  } catch (const penstock::Error& e) {
    fmt::print(stderr, "perplexity: {}\n", e.message());
    return 1;
  }
}
