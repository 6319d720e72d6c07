#include "engine/step_plan.h"

#include <bit>

#include "base/error.h"

namespace penstock::engine {
namespace {

class Writer {
 public:
  void put(int64_t number) { numbers.push_back(number); }
  void put(double number) { numbers.push_back(std::bit_cast<int64_t>(number)); }
  void put(const std::vector<int32_t>& list) {
    put(static_cast<int64_t>(list.size()));
    numbers.insert(numbers.end(), list.begin(), list.end());
  }
  std::vector<int64_t> numbers;
};

class Reader {
 public:
  explicit Reader(std::span<const int64_t> numbers) : numbers_(numbers) {}

  int64_t number(int64_t min, int64_t max) {
    if (next_ >= numbers_.size()) throw error(Code::kInternal, "a step plan ends after {} numbers", numbers_.size());
    const int64_t value = numbers_[next_++];
    if (value < min || value > max) throw error(Code::kInternal, "a step plan has {} at place {}, expected {} to {}", value, next_ - 1, min, max);
    return value;
  }
  int integer(int64_t min = INT32_MIN) { return static_cast<int>(number(min, INT32_MAX)); }
  uint64_t bits() { return static_cast<uint64_t>(number(INT64_MIN, INT64_MAX)); }
  double real() { return std::bit_cast<double>(bits()); }
  size_t size() { return static_cast<size_t>(number(0, static_cast<int64_t>(numbers_.size() - next_))); }
  std::vector<int32_t> list() {
    std::vector<int32_t> result(size());
    for (int32_t& item : result) item = integer();
    return result;
  }
  [[nodiscard]] bool at_end() const { return next_ == numbers_.size(); }

 private:
  const std::span<const int64_t> numbers_;
  size_t next_ = 0;
};

void put(Writer& to, const SamplingChoice& c) {
  for (const double number : {c.temperature, c.top_p, c.min_p, c.repetition_penalty, c.presence_penalty, c.frequency_penalty}) to.put(number);
  for (const int number : {c.top_k, c.min_tokens, c.logprobs}) to.put(int64_t{number});
  to.put(static_cast<int64_t>(c.seed));
  to.put(c.ends);
  to.put(static_cast<int64_t>(c.logit_bias.size()));
  for (const auto& [id, bias] : c.logit_bias) {
    to.put(int64_t{id});
    to.put(double{bias});
  }
}

SamplingChoice take_choice(Reader& from) {
  SamplingChoice c;
  for (double* number : {&c.temperature, &c.top_p, &c.min_p, &c.repetition_penalty, &c.presence_penalty, &c.frequency_penalty}) *number = from.real();
  for (int* number : {&c.top_k, &c.min_tokens, &c.logprobs}) *number = from.integer();
  c.seed = from.bits();
  c.ends = from.list();
  for (size_t left = from.size(); left > 0; --left) {
    const int32_t id = from.integer();
    c.logit_bias.emplace_back(id, static_cast<float>(from.real()));
  }
  return c;
}

size_t samples_size(const SequenceStep& s) { return !s.samples ? 0 : s.logprobs < 0 ? 1 : 1 + 2 * (static_cast<size_t>(s.logprobs) + 1); }

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

std::vector<int64_t> encode(const StepPlan& plan) {
  Writer to;
  to.put(int64_t{0});
  to.put(static_cast<int64_t>(plan.kind));
  to.put(static_cast<int64_t>(plan.sequences.size()));
  for (const SequenceStep& s : plan.sequences) {
    for (const int number : {s.slot, s.start, s.count, s.samples ? 1 : 0, s.logprobs}) to.put(int64_t{number});
    to.put(s.pages);
    to.put(int64_t{s.begins ? 1 : 0});
    if (!s.begins) continue;
    put(to, s.begins->choice);
    to.put(s.begins->prompt);
    to.put(s.begins->completion);
  }
  to.numbers[0] = static_cast<int64_t>(to.numbers.size());
  return std::move(to.numbers);
}

StepPlan decode(std::span<const int64_t> numbers, int max_sequences) {
  Reader from(numbers);
  (void)from.number(static_cast<int64_t>(numbers.size()), static_cast<int64_t>(numbers.size()));
  StepPlan plan{static_cast<StepKind>(from.number(0, 2)), {}};
  for (int64_t left = from.number(0, max_sequences); left > 0; --left) {
    SequenceStep& s = plan.sequences.emplace_back();
    s.slot = static_cast<int>(from.number(0, max_sequences - 1));
    s.start = from.integer(0);
    s.count = from.integer(1);
    s.samples = from.number(0, 1) == 1;
    s.logprobs = from.integer(-1);
    s.pages = from.list();
    if (from.number(0, 1) == 0) continue;
    s.begins.emplace();
    s.begins->choice = take_choice(from);
    s.begins->prompt = from.list();
    s.begins->completion = from.list();
  }
  if (!from.at_end()) throw error(Code::kInternal, "a step plan goes on after its last sequence");
  return plan;
}

size_t encoded_samples_size(const StepPlan& plan) {
  size_t sum = 0;
  for (const SequenceStep& s : plan.sequences) sum += samples_size(s);
  return sum;
}

std::vector<int32_t> encode_samples(const StepPlan& plan, const std::vector<SampledToken>& tokens) {
  std::vector<int32_t> numbers;
  size_t next = 0, end = 0;
  for (const SequenceStep& s : plan.sequences) {
    if (!s.samples) continue;
    const SampledToken& token = tokens.at(next++);
    numbers.push_back(token.id);
    for (const RankedToken& ranked : token.logprobs) {
      numbers.push_back(ranked.id);
      numbers.push_back(std::bit_cast<int32_t>(ranked.logprob));
    }
    end += samples_size(s);
    PENSTOCK_CHECK(numbers.size() <= end, "{} numbers of sampled tokens where {} fit", numbers.size(), end);
    while (numbers.size() < end) numbers.push_back(-1);  // a vocabulary smaller than the alternatives asked for
  }
  return numbers;
}

std::vector<SampledToken> decode_samples(const StepPlan& plan, std::span<const int32_t> numbers) {
  PENSTOCK_CHECK(numbers.size() == encoded_samples_size(plan), "{} numbers of sampled tokens, expected {}", numbers.size(), encoded_samples_size(plan));
  std::vector<SampledToken> tokens;
  for (const SequenceStep& s : plan.sequences) {
    const auto own = numbers.first(samples_size(s));
    numbers = numbers.subspan(own.size());
    if (own.empty()) continue;
    SampledToken& token = tokens.emplace_back();
    token.id = own[0];
    for (size_t i = 1; i + 1 < own.size() && own[i] >= 0; i += 2) token.logprobs.push_back({own[i], std::bit_cast<float>(own[i + 1])});
  }
  return tokens;
}

}  // namespace penstock::engine
