#pragma once
// From a step's logits to its answers: what the last stage knows of the sequences in its slots, but for their pages.
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/step_plan.h"
#include "engine/token_constraints.h"
#include "tensor/tensor_fwd.h"
#include "text/tokenizer.h"

namespace penstock::engine {

// Threads: owned by the thread that samples; its loops are those of kernels/parallel.h.
class StepSampler {
 public:
  // `tokenizer`: without it no text can be constrained; copied from.
  StepSampler(int num_slots, const text::Tokenizer* tokenizer) : slots_(static_cast<size_t>(num_slots)), constraints_(tokenizer) {}

  // Of each sequence that answers(), from its rows of logits [S, V] on any device, which are changed: log probabilities of its targets, and a token by its choice.
  // REQUIRES: every step that is computed, in order, for steps tell which sequences begin; of one without answers the logits may be undefined.
  [[nodiscard]] std::vector<SampledToken> sample(const StepPlan& plan, const Tensor& logits);

 private:
  struct Slot {
    SamplingChoice choice;
    TokenHistory history;
    std::vector<int32_t> completion;                   // of before it began here
    std::optional<text::ConstrainedText> constrained;  // since its first sample, if it has a constraint
  };
  void begin(const StepPlan& plan);
  [[nodiscard]] SampledToken answer(const SequenceStep& step, float* logits, size_t width);
  [[nodiscard]] Slot& at(int slot) { return slots_.at(static_cast<size_t>(slot)); }

  std::vector<Slot> slots_;
  TokenConstraints constraints_;
};

}  // namespace penstock::engine
