#pragma once
// From logits to a token id.
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "text/text_constraint.h"

namespace penstock::engine {

// How the tokens of a sequence are chosen.
struct SamplingChoice {
  double temperature = 1;         // 0 = greedy
  int top_k = 0;                  // 0 = off
  double top_p = 1;               // 1 = off
  double min_p = 0;               // 0 = off
  double repetition_penalty = 1;  // 1 = off
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::pair<int32_t, float>> logit_bias = {};
  std::vector<int32_t> ends = {};  // tokens that end the text, which the first min_tokens are not
  int min_tokens = 0;
  uint64_t seed = 0;
  int logprobs = -1;              // alternatives that are told of each token, besides itself; -1 = nothing is
  text::TextConstraint constraint = {};  // what the completion must be (token_constraints.h)
  std::shared_ptr<const text::Grammar> grammar = nullptr;  // of the constraint, where it is made already; does not travel to another stage
};

// Which tokens a text has.
class TokenHistory {
 public:
  // `prompt` may be empty where nothing asks for it: see needs_prompt().
  TokenHistory(std::span<const int32_t> prompt, std::span<const int32_t> completion);
  TokenHistory() = default;
  void add(int32_t token);  // to the completion

  [[nodiscard]] const std::unordered_set<int32_t>& prompt() const { return prompt_; }
  [[nodiscard]] const std::unordered_map<int32_t, int>& completion() const { return completion_; }  // and how often each is there
  [[nodiscard]] int completion_tokens() const { return completion_tokens_; }

 private:
  std::unordered_set<int32_t> prompt_;
  std::unordered_map<int32_t, int> completion_;
  int completion_tokens_ = 0;
};

struct RankedToken {
  int32_t id = 0;
  float logprob = 0;
};

struct SampledToken {
  int32_t id = 0;     // or kNoFittingToken: the constraint leaves none; kNotNumbers: a logit is NaN, or the largest is infinite
  std::vector<RankedToken> logprobs = {};  // empty unless asked for: itself, then the most likely ones, by falling probability
  bool completes = false;                 // the constraint lets nothing follow
  std::vector<std::vector<RankedToken>> prompt = {};  // of the step's targets (step_plan.h), each as above
};
inline constexpr int32_t kNoFittingToken = -1, kNotNumbers = -2;

// All functions: any thread; pure. Rows of logits are as wide as the vocabulary; ids beyond it are passed over.

[[nodiscard]] inline bool needs_prompt(const SamplingChoice& choice) { return choice.repetition_penalty != 1; }

// What the choice says of single tokens, in place: the bias is added; ends that come too early are made impossible; the logits of tokens that the
// text has are lowered: by the repetition penalty (Keskar et al. 2019, arXiv 1909.05858) those of prompt and completion: positive ones are divided by
// it, others multiplied; by the presence penalty those of the completion; by the frequency penalty times their number.
void adjust(std::span<float> logits, const SamplingChoice& choice, const TokenHistory& history);

// Greedy: the largest logit, the lowest id among equals. Otherwise softmax(logits / temperature), cut to what is at least min_p times as likely as the
// most likely token (Nguyen et al. 2024, arXiv 2407.01082), to the top_k most likely, and to the smallest set of them whose probability reaches top_p (Holtzman et al.
// 2020, arXiv 1904.09751), and drawn with a number that depends on (seed, position) alone: the same request gives the same text whatever else runs.
// `position`: of the sampled token in its sequence.
[[nodiscard]] int32_t sample(std::span<const float> logits, const SamplingChoice& choice, int64_t position);

// log softmax(logits) of `chosen`, then of the `count` largest; of equal ones the lowest id first. Impossible ones are left out.
[[nodiscard]] std::vector<RankedToken> log_probabilities(std::span<const float> logits, int32_t chosen, int count);

// The three together. Log probabilities are those of the model: of the logits as they came, among what a constraint has left possible. `logits` is changed.
[[nodiscard]] SampledToken next_token(std::span<float> logits, const SamplingChoice& choice, const TokenHistory& history, int64_t position);

// In [0, 1): a function of (seed, position), equal on every machine.
[[nodiscard]] double uniform_at(uint64_t seed, int64_t position);

}  // namespace penstock::engine
