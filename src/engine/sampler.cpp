#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace penstock::engine {
namespace {

int32_t argmax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct Candidate {
  int32_t id;
  double weight;  // not normalised
};

// The most likely first; equal ones by id.
std::vector<Candidate> ranked(std::span<const float> logits, double temperature, size_t count) {
  const double top = *std::max_element(logits.begin(), logits.end());
  std::vector<Candidate> all(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) all[i] = {static_cast<int32_t>(i), std::exp((logits[i] - top) / temperature)};
  const auto before = [](const Candidate& a, const Candidate& b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; };
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(count), all.end(), before);
  all.resize(count);
  return all;
}

double total(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0, [](double sum, const Candidate& c) { return sum + c.weight; });
}

void keep_nucleus(std::vector<Candidate>& candidates, double top_p) {
  const double enough = top_p * total(candidates);
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates.size() && sum < enough) sum += candidates[kept++].weight;
  candidates.resize(std::max<size_t>(1, kept));
}

}  // namespace

double uniform_at(uint64_t seed, int64_t position) {
  uint64_t z = seed + 0x9E3779B97F4A7C15ull * (static_cast<uint64_t>(position) + 1);  // SplitMix64 at a given place
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

int32_t sample(std::span<const float> logits, const SamplingChoice& choice) {
  if (choice.temperature <= 0) return argmax(logits);
  const size_t count = choice.top_k > 0 ? std::min(logits.size(), static_cast<size_t>(choice.top_k)) : logits.size();
  std::vector<Candidate> candidates = ranked(logits, choice.temperature, count);
  if (choice.top_p < 1) keep_nucleus(candidates, choice.top_p);
  double left = uniform_at(choice.seed, choice.position) * total(candidates);
  for (const Candidate& c : candidates) {
    left -= c.weight;
    if (left < 0) return c.id;
  }
  return candidates.back().id;  // rounding
}

}  // namespace penstock::engine
