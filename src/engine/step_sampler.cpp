#include "engine/step_sampler.h"

#include <ATen/core/Tensor.h>

#include "kernels/parallel.h"

namespace penstock::engine {

void StepSampler::begin(const StepPlan& plan) {
  for (const SequenceStep& s : plan.sequences) {
    Slot& slot = at(s.slot);
    if (s.begins) slot = {s.begins->choice, {s.begins->prompt, s.begins->completion}, s.begins->completion, {}};
    if (s.samples && slot.choice.constraint && !slot.constrained) slot.constrained = constraints_.begin(slot.choice.constraint, slot.completion);
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
  const Tensor on_host = logits.cpu();
  const auto width = static_cast<size_t>(on_host.size(-1));
  float* first = on_host.data_ptr<float>();
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
