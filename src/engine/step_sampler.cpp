#include "engine/step_sampler.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "engine/greedy_tokens.h"
#include "kernels/parallel.h"

namespace penstock::engine {
namespace {

// In memory that the device writes to directly.
Tensor on_host(const Tensor& logits) {
  if (logits.is_cpu()) return logits;
  Tensor host = at::empty(logits.sizes(), logits.options().device(at::kCPU).pinned_memory(true));
  host.copy_(logits);
  return host;
}

}  // namespace

void StepSampler::begin(const StepPlan& plan) {
  for (const SequenceStep& s : plan.sequences) {
    Slot& slot = at(s.slot);
    if (s.begins) slot = {s.begins->choice, {s.begins->prompt, s.begins->completion}, s.begins->completion, {}};
    if (s.samples && slot.choice.constraint && !slot.constrained) slot.constrained = constraints_.begin(slot.choice, slot.completion);
  }
}

std::vector<SampledToken> StepSampler::sample(const StepPlan& plan, const Tensor& logits) {
  begin(plan);
  struct Part {
    const SequenceStep* step;
    size_t first_row;
  };
  std::vector<Part> parts;
  size_t rows = 0;
  for (const SequenceStep& s : plan.sequences) {
    if (s.answers()) parts.push_back({&s, rows});
    rows += s.targets.size() + (s.samples ? 1 : 0);
  }
  std::vector<SampledToken> tokens(parts.size());
  if (parts.empty()) return tokens;
  const auto is_plain = [&](const Part& p) { return p.step->targets.empty() && is_plain_greedy(at(p.step->slot).choice, at(p.step->slot).history); };
  if (!logits.is_cpu() && std::ranges::all_of(parts, is_plain)) {
    tokens = greedy_tokens(logits);
    for (size_t i = 0; i < parts.size(); ++i) at(parts[i].step->slot).history.add(tokens[i].id);
    return tokens;
  }
  const Tensor rows_on_host = on_host(logits);
  const auto width = static_cast<size_t>(rows_on_host.size(-1));
  float* first = rows_on_host.data_ptr<float>();
  kernels::parallel_for(0, static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) tokens[i] = answer(*parts[i].step, first + parts[i].first_row * width, width);
  });
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].step->samples) at(parts[i].step->slot).history.add(tokens[i].id);
  }
  return tokens;
}

// From rows of logits that stand one behind the other at `logits`.
SampledToken StepSampler::answer(const SequenceStep& step, float* logits, size_t width) {
  std::vector<std::vector<RankedToken>> prompt;
  for (const int32_t target : step.targets) {
    prompt.push_back(log_probabilities({logits, width}, target, step.alternatives));
    logits += width;
  }
  SampledToken token;
  if (step.samples) {
    Slot& slot = at(step.slot);
    const std::span<float> row{logits, width};
    const int64_t position = step.start + step.count;
    if (!slot.choice.constraint) token = next_token(row, slot.choice, slot.history, position);
    else if (slot.constrained) token = next_constrained_token(row, slot.choice, slot.history, position, *slot.constrained);
    else token = {kNoFittingToken};
  }
  token.prompt = std::move(prompt);
  return token;
}

}  // namespace penstock::engine
