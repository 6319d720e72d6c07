#include "engine/step_plan.h"

#include <bit>
#include <cstring>
#include <string>

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
  void put(const std::string& text) {  // eight bytes a number
    put(static_cast<int64_t>(text.size()));
    const size_t first = numbers.size();
    numbers.resize(first + (text.size() + 7) / 8);
    std::memcpy(numbers.data() + first, text.data(), text.size());
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
  std::string text() {
    const auto bytes = static_cast<size_t>(number(0, 8 * static_cast<int64_t>(numbers_.size() - next_)));
    const auto packed = numbers_.subspan(next_);
    if ((bytes + 7) / 8 > packed.size()) throw error(Code::kInternal, "a step plan ends within a text of {} bytes", bytes);
    next_ += (bytes + 7) / 8;
    std::string text(bytes, '\0');
    std::memcpy(text.data(), packed.data(), bytes);
    return text;
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
  to.put(static_cast<int64_t>(c.constraint.kind));
  to.put(c.constraint.source);
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
  c.constraint.kind = static_cast<text::TextConstraint::Kind>(from.number(0, static_cast<int64_t>(text::TextConstraint::Kind::kChoice)));
  c.constraint.source = from.text();
  for (size_t left = from.size(); left > 0; --left) {
    const int32_t id = from.integer();
    c.logit_bias.emplace_back(id, static_cast<float>(from.real()));
  }
  return c;
}

constexpr int32_t kCompletes = kNotNumbers - 1;  // of a token that completes its text, this minus its id is sent

size_t ranks_size(int alternatives) { return 2 * (static_cast<size_t>(alternatives) + 1); }

size_t answer_size(const SequenceStep& s) {
  const size_t sample = !s.samples ? 0 : s.logprobs < 0 ? 1 : 1 + ranks_size(s.logprobs);
  return sample + s.targets.size() * ranks_size(s.alternatives);
}

// Ranked tokens as exactly `size` numbers: a vocabulary may be smaller than the alternatives asked for.
void put_ranks(const std::vector<RankedToken>& ranks, size_t size, std::vector<int32_t>& numbers) {
  const size_t end = numbers.size() + size;
  for (const RankedToken& ranked : ranks) {
    numbers.push_back(ranked.id);
    numbers.push_back(std::bit_cast<int32_t>(ranked.logprob));
  }
  PENSTOCK_CHECK(numbers.size() <= end, "{} numbers of ranked tokens where {} fit", numbers.size(), end);
  numbers.resize(end, -1);
}

std::vector<RankedToken> ranks_in(std::span<const int32_t> numbers) {
  std::vector<RankedToken> ranks;
  for (size_t i = 0; i + 1 < numbers.size() && numbers[i] >= 0; i += 2) ranks.push_back({numbers[i], std::bit_cast<float>(numbers[i + 1])});
  return ranks;
}

}  // namespace

int StepPlan::rows() const {
  int sum = 0;
  for (const SequenceStep& s : sequences) sum += s.count;
  return sum;
}

int StepPlan::answers() const {
  int sum = 0;
  for (const SequenceStep& s : sequences) sum += s.answers() ? 1 : 0;
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
    to.put(s.targets);
    for (const int number : {s.first_target, s.alternatives}) to.put(int64_t{number});
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
    s.targets = from.list();
    s.first_target = static_cast<int>(from.number(0, s.count - static_cast<int64_t>(s.targets.size())));
    s.alternatives = from.integer(0);
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
  for (const SequenceStep& s : plan.sequences) sum += answer_size(s);
  return sum;
}

std::vector<int32_t> encode_samples(const StepPlan& plan, const std::vector<SampledToken>& tokens) {
  std::vector<int32_t> numbers;
  size_t next = 0;
  for (const SequenceStep& s : plan.sequences) {
    if (!s.answers()) continue;
    const SampledToken& token = tokens.at(next++);
    PENSTOCK_CHECK(token.prompt.size() == s.targets.size(), "{} targets were answered, expected {}", token.prompt.size(), s.targets.size());
    for (const auto& ranks : token.prompt) put_ranks(ranks, ranks_size(s.alternatives), numbers);
    if (!s.samples) continue;
    numbers.push_back(token.completes ? kCompletes - token.id : token.id);
    if (s.logprobs >= 0) put_ranks(token.logprobs, ranks_size(s.logprobs), numbers);
  }
  return numbers;
}

std::vector<SampledToken> decode_samples(const StepPlan& plan, std::span<const int32_t> numbers) {
  PENSTOCK_CHECK(numbers.size() == encoded_samples_size(plan), "{} numbers of sampled tokens, expected {}", numbers.size(), encoded_samples_size(plan));
  std::vector<SampledToken> tokens;
  const auto take = [&](size_t count) {
    const auto taken = numbers.first(count);
    numbers = numbers.subspan(count);
    return taken;
  };
  for (const SequenceStep& s : plan.sequences) {
    if (!s.answers()) continue;
    SampledToken& token = tokens.emplace_back();
    for (size_t i = 0; i < s.targets.size(); ++i) token.prompt.push_back(ranks_in(take(ranks_size(s.alternatives))));
    if (!s.samples) continue;
    const int32_t id = take(1)[0];
    token.completes = id <= kCompletes;
    token.id = token.completes ? kCompletes - id : id;
    if (s.logprobs >= 0) token.logprobs = ranks_in(take(ranks_size(s.logprobs)));
  }
  return tokens;
}

}  // namespace penstock::engine
