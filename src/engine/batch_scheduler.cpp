#include "engine/batch_scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::engine {

std::vector<int> BatchScheduler::make_slots(int count) {
  std::vector<int> slots;
  for (int s = count - 1; s >= 0; --s) slots.push_back(s);
  return slots;
}

bool BatchScheduler::add(RequestId id, SequenceInput input) {
  PENSTOCK_CHECK(!input.prompt.empty() && static_cast<int>(input.prompt.size()) < limits_.max_sequence_tokens, "a prompt of {} tokens", input.prompt.size());
  if (waiting_.size() >= static_cast<size_t>(limits_.max_waiting)) return false;
  waiting_.emplace_back(id, std::move(input));
  return true;
}

void BatchScheduler::remove(RequestId id) {
  std::erase_if(waiting_, [id](const auto& entry) { return entry.first == id; });
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  found->second.removed = true;
  if (!found->second.in_flight) release(id);
}

void BatchScheduler::release(RequestId id) {
  const auto found = running_.find(id);
  free_slots_.push_back(found->second.slot);
  running_.erase(found);
}

void BatchScheduler::admit() {
  while (!waiting_.empty() && !free_slots_.empty()) {
    auto [id, input] = std::move(waiting_.front());
    waiting_.pop_front();
    Sequence sequence;
    sequence.tokens = input.prompt;
    sequence.input = std::move(input);
    sequence.slot = free_slots_.back();
    free_slots_.pop_back();
    running_.emplace(id, std::move(sequence));
  }
}

void BatchScheduler::append(Step& step, RequestId id, Sequence& sequence, int max_rows) const {
  const int left = static_cast<int>(sequence.tokens.size()) - sequence.computed;
  SequenceStep part;
  part.slot = sequence.slot;
  part.start = sequence.computed;
  part.count = std::min(left, max_rows);
  part.samples = part.count == left;
  part.choice = sequence.input.choice;
  part.choice.position = static_cast<int64_t>(sequence.tokens.size());
  const auto first = sequence.tokens.begin() + part.start;
  step.tokens.insert(step.tokens.end(), first, first + part.count);
  step.plan.sequences.push_back(part);
  step.ids.push_back(id);
  sequence.computed += part.count;
  sequence.in_flight = true;
}

std::optional<BatchScheduler::Step> BatchScheduler::next() {
  admit();
  const size_t stages = static_cast<size_t>(limits_.num_stages);
  const size_t share = (running_.size() + stages - 1) / stages;
  Step step;
  step.plan.kind = StepKind::kCompute;
  int rows_left = limits_.max_step_rows;
  // Start behind the sequence that was served last, once around.
  auto it = running_.upper_bound(last_served_);
  for (size_t seen = 0; seen < running_.size() && step.ids.size() < share && rows_left > 0; ++seen) {
    if (it == running_.end()) it = running_.begin();
    auto& [id, sequence] = *it++;
    if (sequence.in_flight) continue;
    append(step, id, sequence, rows_left);
    rows_left -= step.plan.sequences.back().count;
    last_served_ = id;
  }
  if (step.ids.empty()) return std::nullopt;
  return step;
}

std::vector<BatchScheduler::Sampled> BatchScheduler::complete(const Step& step, const std::vector<int32_t>& sampled) {
  PENSTOCK_CHECK(sampled.size() == static_cast<size_t>(step.plan.samples()), "{} sampled tokens, expected {}", sampled.size(), step.plan.samples());
  std::vector<Sampled> out;
  size_t next_sample = 0;
  for (size_t i = 0; i < step.ids.size(); ++i) {
    const bool samples = step.plan.sequences[i].samples;
    const int32_t token = samples ? sampled[next_sample++] : -1;
    Sequence& sequence = running_.at(step.ids[i]);
    sequence.in_flight = false;
    if (sequence.removed) {
      release(step.ids[i]);
      continue;
    }
    if (!samples) continue;
    sequence.tokens.push_back(token);
    ++sequence.completion;
    const bool at_limit = sequence.completion >= sequence.input.max_tokens || static_cast<int>(sequence.tokens.size()) >= limits_.max_sequence_tokens;
    out.push_back({step.ids[i], token, at_limit});
  }
  return out;
}

}  // namespace penstock::engine
