#pragma once
// What one step computes: which sequences, which of their positions, and what is sampled. The first stage makes it, and it travels
// ahead of the activations to every other stage. The last stage answers with the sampled tokens.
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/sampler.h"

namespace penstock::engine {

enum class StepKind : int64_t { kIdle = 0, kCompute = 1, kStop = 2 };

// What stages are told of a sequence in its first step in a slot; they keep it until the next one begins there.
struct SequenceStart {
  SamplingChoice choice;
  std::vector<int32_t> prompt;      // empty unless the choice asks for it
  std::vector<int32_t> completion;  // of before it was put back (Note [Preemption] in batch_scheduler.h)
};

// `count` rows of the sequence in a slot: positions start … start + count − 1.
struct SequenceStep {
  int slot = 0;
  int start = 0;
  int count = 0;
  bool samples = false;               // the last row's logits become a token
  int logprobs = -1;                  // SamplingChoice's, when `samples`
  std::vector<int32_t> targets = {};  // of a prompt whose log probabilities are asked for: the tokens that follow the rows from first_target on
  int first_target = 0;
  int alternatives = 0;               // that are told of each target, besides itself
  std::vector<int32_t> pages = {};    // of the KV cache, after those that earlier steps have told
  std::optional<SequenceStart> begins = {};  // the sequence is new in this slot

  [[nodiscard]] bool answers() const { return samples || !targets.empty(); }
};

struct StepPlan {
  StepKind kind = StepKind::kIdle;
  std::vector<SequenceStep> sequences = {};

  [[nodiscard]] int rows() const;
  [[nodiscard]] int answers() const;  // sequences of which the last stage has something to say
};

// As int64 numbers, for the wire. The first one is how many there are.
[[nodiscard]] std::vector<int64_t> encode(const StepPlan& plan);
// Throws Error kInternal for numbers that make no plan, or one with a slot that is not below max_sequences.
[[nodiscard]] StepPlan decode(std::span<const int64_t> numbers, int max_sequences);

// The answers to a plan, one for each sequence that answers() in its order, as int32 numbers: so many for this plan, always. Without a sample, the
// token of an answer does not count.
[[nodiscard]] size_t encoded_samples_size(const StepPlan& plan);
[[nodiscard]] std::vector<int32_t> encode_samples(const StepPlan& plan, const std::vector<SampledToken>& tokens);
[[nodiscard]] std::vector<SampledToken> decode_samples(const StepPlan& plan, std::span<const int32_t> numbers);

}  // namespace penstock::engine
