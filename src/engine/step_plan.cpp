#include "engine/step_plan.h"

#include <bit>

#include "base/error.h"

namespace penstock::engine {
namespace {

constexpr size_t kHeader = 2;    // kind, number of sequences
constexpr size_t kFields = 9;    // of a sequence

}  // namespace

int StepPlan::rows() const {
  int sum = 0;
  for (const SequenceStep& s : sequences) sum += s.count;
  return sum;
}

int StepPlan::samples() const {
  int sum = 0;
  for (const SequenceStep& s : sequences) sum += s.samples ? 1 : 0;
  return sum;
}

size_t encoded_size(int max_sequences) { return kHeader + kFields * static_cast<size_t>(max_sequences); }

std::vector<int64_t> encode(const StepPlan& plan, int max_sequences) {
  PENSTOCK_CHECK(plan.sequences.size() <= static_cast<size_t>(max_sequences), "{} sequences in a step of at most {}", plan.sequences.size(), max_sequences);
  std::vector<int64_t> out{static_cast<int64_t>(plan.kind), static_cast<int64_t>(plan.sequences.size())};
  for (const SequenceStep& s : plan.sequences) {
    out.insert(out.end(), {s.slot, s.start, s.count, s.samples ? 1 : 0, std::bit_cast<int64_t>(s.choice.temperature), s.choice.top_k,
                           std::bit_cast<int64_t>(s.choice.top_p), std::bit_cast<int64_t>(s.choice.seed), s.choice.position});
  }
  out.resize(encoded_size(max_sequences));
  return out;
}

StepPlan decode(std::span<const int64_t> numbers, int max_sequences) {
  const auto in_range = [](int64_t value, int64_t max) { return value >= 0 && value <= max; };
  if (numbers.size() != encoded_size(max_sequences) || !in_range(numbers[0], 2) || !in_range(numbers[1], max_sequences)) {
    throw error(Code::kInternal, "a step plan of {} numbers, expected {} for {} sequences", numbers.size(), encoded_size(max_sequences), max_sequences);
  }
  StepPlan plan{static_cast<StepKind>(numbers[0]), {}};
  for (int64_t i = 0; i < numbers[1]; ++i) {
    const auto f = numbers.subspan(kHeader + kFields * static_cast<size_t>(i), kFields);
    if (!in_range(f[0], max_sequences - 1) || !in_range(f[1], INT32_MAX) || !in_range(f[2], INT32_MAX)) {
      throw error(Code::kInternal, "a step plan with slot {}, start {}, count {}", f[0], f[1], f[2]);
    }
    plan.sequences.push_back({static_cast<int>(f[0]), static_cast<int>(f[1]), static_cast<int>(f[2]), f[3] != 0,
                              {std::bit_cast<double>(f[4]), static_cast<int>(f[5]), std::bit_cast<double>(f[6]), std::bit_cast<uint64_t>(f[7]), f[8]}});
  }
  return plan;
}

}  // namespace penstock::engine
