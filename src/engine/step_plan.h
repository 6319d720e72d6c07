#pragma once
// What one step computes: which sequences, which of their positions, and what is sampled. The first stage makes it, and it travels
// ahead of the activations to every other stage.
#include <cstdint>
#include <span>
#include <vector>

#include "engine/sampler.h"

namespace penstock::engine {

enum class StepKind : int64_t { kIdle = 0, kCompute = 1, kStop = 2 };

// `count` rows of a sequence: positions start … start + count − 1 of the owner of a KV slot.
struct SequenceStep {
  int slot = 0;
  int start = 0;
  int count = 0;
  bool samples = false;   // the last row's logits become a token
  SamplingChoice choice;  // when `samples`
};

struct StepPlan {
  StepKind kind = StepKind::kIdle;
  std::vector<SequenceStep> sequences;

  [[nodiscard]] int rows() const;
  [[nodiscard]] int samples() const;
};

// As int64 numbers, for the wire. The size depends on max_sequences alone, so that a receiver can post its receive before it knows the plan.
[[nodiscard]] size_t encoded_size(int max_sequences);
[[nodiscard]] std::vector<int64_t> encode(const StepPlan& plan, int max_sequences);
// Throws Error kInternal for numbers that make no plan.
[[nodiscard]] StepPlan decode(std::span<const int64_t> numbers, int max_sequences);

}  // namespace penstock::engine
