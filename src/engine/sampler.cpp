#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/simd.h"

namespace penstock::engine {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

int32_t argmax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// e^((logit − top) · scale): 1 for the most likely token; what is less than 1e-30 as likely is impossible.
PENSTOCK_CLONES void weigh(const float* logits, size_t count, float top, float scale, float* weights) {
  for (size_t i = 0; i < count; ++i) {
    const float weight = kernels::exp_fast((logits[i] - top) * scale);
    weights[i] = weight < 1e-30f ? 0.0f : weight;
  }
}

std::vector<float> weights_of(std::span<const float> logits, double temperature) {
  std::vector<float> weights(logits.size());
  weigh(logits.data(), logits.size(), *std::max_element(logits.begin(), logits.end()), static_cast<float>(1 / temperature), weights.data());
  return weights;
}

struct Candidate {
  int32_t id;
  float weight;
};

bool more_likely(const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; }

// Those that are possible, and at least min_p times as likely as the most likely one, by id.
std::vector<Candidate> candidates_of(std::span<const float> logits, const SamplingChoice& choice) {
  const std::vector<float> weights = weights_of(logits, choice.temperature);
  std::vector<Candidate> all;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0 && weights[i] >= choice.min_p) all.push_back({static_cast<int32_t>(i), weights[i]});
  }
  return all;
}

double total(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0, [](double sum, const Candidate& c) { return sum + c.weight; });
}

// The `count` most likely, the most likely first.
void keep_most_likely(std::vector<Candidate>& candidates, size_t count) {
  count = std::min(count, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(count), candidates.end(), more_likely);
  candidates.resize(count);
}

// Sorts no more than it keeps, or four times that.
void keep_nucleus(std::vector<Candidate>& candidates, double top_p) {
  const double enough = top_p * total(candidates);
  double sum = 0;
  size_t kept = 0;
  for (size_t sorted = 0; kept < candidates.size() && (kept == 0 || sum < enough); sum += candidates[kept++].weight) {
    if (kept < sorted) continue;
    const size_t next = std::min(candidates.size(), std::max<size_t>(64, 4 * sorted));
    const auto at = [&](size_t i) { return candidates.begin() + static_cast<ptrdiff_t>(i); };
    std::partial_sort(at(sorted), at(next), candidates.end(), more_likely);
    sorted = next;
  }
  candidates.resize(kept);
}

// Whether one is NaN or +∞. −∞ is a token that cannot be.
PENSTOCK_CLONES bool has_no_number(const float* logits, size_t count) {
  int wrong = 0;
  for (size_t i = 0; i < count; ++i) wrong |= !(logits[i] < std::numeric_limits<float>::infinity());
  return wrong != 0;
}

void change(std::span<float> logits, int32_t id, double by) {
  if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[static_cast<size_t>(id)] += static_cast<float>(by);
}

void penalize_repetition(std::span<float> logits, int32_t id, double penalty) {
  if (id < 0 || static_cast<size_t>(id) >= logits.size()) return;
  float& logit = logits[static_cast<size_t>(id)];
  logit = static_cast<float>(logit > 0 ? logit / penalty : logit * penalty);
}

}  // namespace

TokenHistory::TokenHistory(std::span<const int32_t> prompt, std::span<const int32_t> completion) : prompt_(prompt.begin(), prompt.end()) {
  for (const int32_t token : completion) add(token);
}

void TokenHistory::add(int32_t token) {
  ++completion_[token];
  ++completion_tokens_;
}

double uniform_at(uint64_t seed, int64_t position) {
  uint64_t z = seed + 0x9E3779B97F4A7C15ull * (static_cast<uint64_t>(position) + 1);  // SplitMix64 at a given place
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

void adjust(std::span<float> logits, const SamplingChoice& choice, const TokenHistory& history) {
  for (const auto& [id, bias] : choice.logit_bias) change(logits, id, bias);
  if (history.completion_tokens() < choice.min_tokens) {
    for (const int32_t id : choice.ends) change(logits, id, kImpossible);
  }
  if (choice.repetition_penalty != 1) {
    for (const int32_t id : history.prompt()) penalize_repetition(logits, id, choice.repetition_penalty);
    for (const auto& [id, count] : history.completion()) {
      if (!history.prompt().contains(id)) penalize_repetition(logits, id, choice.repetition_penalty);
    }
  }
  if (choice.presence_penalty == 0 && choice.frequency_penalty == 0) return;
  for (const auto& [id, count] : history.completion()) change(logits, id, -choice.presence_penalty - choice.frequency_penalty * count);
}

int32_t sample(std::span<const float> logits, const SamplingChoice& choice, int64_t position) {
  if (choice.temperature <= 0) return argmax(logits);
  std::vector<Candidate> candidates = candidates_of(logits, choice);
  if (candidates.empty()) return argmax(logits);  // none is possible
  if (choice.top_k > 0) keep_most_likely(candidates, static_cast<size_t>(choice.top_k));
  if (choice.top_p < 1) keep_nucleus(candidates, choice.top_p);
  double left = uniform_at(choice.seed, position) * total(candidates);
  for (const Candidate& c : candidates) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return candidates.back().id;  // rounding
}

std::vector<RankedToken> log_probabilities(std::span<const float> logits, int32_t chosen, int count) {
  const std::vector<float> weights = weights_of(logits, 1);
  const double log_sum = *std::max_element(logits.begin(), logits.end()) + std::log(std::accumulate(weights.begin(), weights.end(), 0.0));
  const auto ranked = [&](int32_t id) { return RankedToken{id, static_cast<float>(logits[static_cast<size_t>(id)] - log_sum)}; };
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto kept = ids.begin() + static_cast<ptrdiff_t>(std::min(ids.size(), static_cast<size_t>(std::max(0, count))));
  std::partial_sort(ids.begin(), kept, ids.end(), [&](int32_t a, int32_t b) {
    const float of_a = logits[static_cast<size_t>(a)], of_b = logits[static_cast<size_t>(b)];
    return of_a != of_b ? of_a > of_b : a < b;
  });
  std::vector<RankedToken> result{ranked(chosen)};
  for (auto it = ids.begin(); it != kept; ++it) {
    if (logits[static_cast<size_t>(*it)] > kImpossible) result.push_back(ranked(*it));
  }
  return result;
}

SampledToken next_token(std::span<float> logits, const SamplingChoice& choice, const TokenHistory& history, int64_t position) {
  if (has_no_number(logits.data(), logits.size())) return {kNotNumbers};
  if (choice.logprobs < 0) {
    adjust(logits, choice, history);
    return {sample(logits, choice, position)};
  }
  std::vector<float> adjusted(logits.begin(), logits.end());
  adjust(adjusted, choice, history);
  const int32_t id = sample(adjusted, choice, position);
  return {id, log_probabilities(logits, id, choice.logprobs)};
}

}  // namespace penstock::engine
