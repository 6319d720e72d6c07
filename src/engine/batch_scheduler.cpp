#include "engine/batch_scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::engine {

BatchScheduler::BatchScheduler(const SchedulerLimits& limits) : limits_(limits), pages_(limits.num_pages) {
  PENSTOCK_CHECK(limits.num_pages >= pages_for(limits.max_sequence_tokens), "{} pages for sequences of {} tokens", limits.num_pages, limits.max_sequence_tokens);
  for (int slot = limits.max_sequences - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

bool BatchScheduler::add(RequestId id, SequenceInput input) {
  const size_t known = input.prompt.size() + input.generated.size();
  PENSTOCK_CHECK(!input.prompt.empty() && static_cast<int>(known) < limits_.max_sequence_tokens, "a prompt of {} tokens", known);
  if (waiting_.size() >= static_cast<size_t>(limits_.max_waiting)) return false;
  Sequence sequence;
  sequence.tokens = input.prompt;
  sequence.tokens.insert(sequence.tokens.end(), input.generated.begin(), input.generated.end());
  sequence.completion = static_cast<int>(input.generated.size());
  sequence.input = std::move(input);
  waiting_.emplace_back(id, std::move(sequence));
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
  leave(found->second);
  running_.erase(found);
}

// Gives up slot and pages. What was computed may still be found in the pages.
void BatchScheduler::leave(Sequence& sequence) {
  if (sequence.slot >= 0) free_slots_.push_back(sequence.slot);
  for (auto page = sequence.pages.rbegin(); page != sequence.pages.rend(); ++page) pages_.release(*page);
  sequence.slot = -1;
  sequence.computed = 0;
  sequence.pages.clear();
  sequence.told = 0;
  sequence.published = 0;
  sequence.prefix = 0;
}

// Pages that sequences have not taken yet, and will need for the tokens that they have.
int BatchScheduler::pages_promised() const {
  int sum = 0;
  for (const auto& [id, sequence] : running_) sum += std::max(0, pages_for(sequence.size()) - static_cast<int>(sequence.pages.size()));
  return sum;
}

// How many of those that wait could begin now, without what they share.
size_t BatchScheduler::admissible() const {
  int pages = pages_.available() - pages_promised();
  size_t count = 0;
  for (const auto& [id, sequence] : waiting_) {
    pages -= pages_for(sequence.size() + 1);
    if (count >= free_slots_.size() || (pages < 0 && running_.size() + count > 0)) break;
    ++count;
  }
  return count;
}

// The oldest that waits, if there is a slot for it and its tokens fit: it begins to run.
bool BatchScheduler::admit() {
  if (waiting_.empty() || free_slots_.empty() || pages_.available() == 0) return false;
  auto& [id, sequence] = waiting_.front();
  share_pages(sequence);
  const int needed = pages_for(sequence.size() + 1) - static_cast<int>(sequence.pages.size());
  if (!running_.empty() && needed + pages_promised() > pages_.available()) {
    leave(sequence);
    return false;
  }
  if (sequence.completion == 0) {
    prefix_queries_ += sequence.size();
    prefix_hits_ += sequence.computed;
    if (!sequence.ran) sequence.cached = sequence.computed;
  }
  sequence.ran = true;
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  running_.emplace(id, std::move(sequence));
  waiting_.pop_front();
  return true;
}

// Takes pages that others have computed, where the sequence is at the beginning of one. At least one token is left to compute.
void BatchScheduler::share_pages(Sequence& sequence) {
  while (sequence.computed == static_cast<int>(sequence.pages.size()) * kPageTokens && sequence.left() > kPageTokens &&
         sequence.asked(sequence.computed, sequence.computed + kPageTokens).second == 0) {
    const auto tokens = std::span(sequence.tokens).subspan(static_cast<size_t>(sequence.computed), kPageTokens);
    const auto shared = pages_.find(sequence.input.salt, sequence.prefix, tokens);
    if (!shared) break;
    sequence.pages.push_back(shared->page);
    sequence.prefix = shared->prefix;
    ++sequence.published;
    sequence.computed += kPageTokens;
    if (sequence.slot < 0 || sequence.completion > 0) continue;
    prefix_hits_ += kPageTokens;
    sequence.cached += kPageTokens;
  }
}

// The youngest other sequence that is in no step gives up its pages. false: there is none that is younger.
bool BatchScheduler::preempt_another(RequestId id) {
  for (auto it = running_.rbegin(); it != running_.rend() && it->first > id; ++it) {
    if (it->second.in_flight || it->second.removed) continue;
    leave(it->second);
    ++preemptions_;
    const auto place = std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& entry) { return entry.first > it->first; });
    waiting_.emplace(place, it->first, std::move(it->second));
    running_.erase(std::next(it).base());
    return true;
  }
  return false;
}

// Takes pages for so many tokens, others' if need be. false: there are not enough, and it keeps what it got.
bool BatchScheduler::hold_pages(RequestId id, Sequence& sequence, int tokens) {
  while (static_cast<int>(sequence.pages.size()) < pages_for(tokens)) {
    if (const auto page = pages_.allocate()) sequence.pages.push_back(*page);
    else if (!preempt_another(id)) return false;
  }
  return true;
}

void BatchScheduler::publish(Sequence& sequence) {
  for (; (sequence.published + 1) * kPageTokens <= sequence.computed; ++sequence.published) {
    const auto place = static_cast<size_t>(sequence.published);
    const auto tokens = std::span(sequence.tokens).subspan(place * kPageTokens, kPageTokens);
    sequence.prefix = pages_.publish(sequence.pages[place], sequence.input.salt, sequence.prefix, tokens);
  }
}

// Puts up to max_rows rows of the sequence into the step; how many.
int BatchScheduler::append(Step& step, RequestId id, Sequence& sequence, int max_rows) {
  if (sequence.left() > 1) share_pages(sequence);
  int count = std::min(sequence.left(), max_rows);
  if (sequence.asked(sequence.computed, sequence.computed + count).second > 0) count = std::min(count, kMostTargets);
  if (!hold_pages(id, sequence, sequence.computed + count)) {
    count = std::min(count, static_cast<int>(sequence.pages.size()) * kPageTokens - sequence.computed);
  }
  if (count <= 0) return 0;
  // A piece of a prompt ends with a page if it reaches the end of one: then others can go on from there.
  if (const int end = (sequence.computed + count) / kPageTokens * kPageTokens; count < sequence.left() && end > sequence.computed) count = end - sequence.computed;
  SequenceStep part;
  part.slot = sequence.slot;
  part.start = sequence.computed;
  part.count = count;
  part.samples = count == sequence.left();
  if (part.samples) part.logprobs = sequence.input.choice.logprobs;
  ask(part, sequence);
  if (sequence.told == 0) {
    part.begins.emplace(SequenceStart{sequence.input.choice, {}, {sequence.tokens.begin() + static_cast<ptrdiff_t>(sequence.input.prompt.size()), sequence.tokens.end()}});
    if (needs_prompt(sequence.input.choice)) part.begins->prompt = sequence.input.prompt;
  }
  part.pages.assign(sequence.pages.begin() + static_cast<ptrdiff_t>(sequence.told), sequence.pages.end());
  sequence.told = sequence.pages.size();
  const auto first = sequence.tokens.begin() + part.start;
  step.tokens.insert(step.tokens.end(), first, first + part.count);
  step.plan.sequences.push_back(std::move(part));
  step.ids.push_back(id);
  sequence.computed += count;
  sequence.in_flight = true;
  publish(sequence);
  return count;
}

// The log probabilities that the part's rows tell.
void BatchScheduler::ask(SequenceStep& part, Sequence& sequence) {
  const auto [first, count] = sequence.asked(part.start, part.start + part.count);
  if (count == 0) return;
  const auto next = sequence.input.prompt.begin() + first + 1;
  part.targets.assign(next, next + count);
  part.first_target = first - part.start;
  part.alternatives = sequence.input.prompt_logprobs;
  sequence.answered = first + count;
}

// Sequences that are in no step, by age.
std::vector<RequestId> BatchScheduler::resting(bool streaming) const {
  std::vector<RequestId> ids;
  for (const auto& [id, sequence] : running_) {
    if (!sequence.in_flight && sequence.streams() == streaming) ids.push_back(id);
  }
  return ids;
}

// Those that stream, beginning behind the one that was served last.
void BatchScheduler::take_turns(Step& step, size_t share) {
  std::vector<RequestId> ids = resting(/*streaming=*/true);
  std::rotate(ids.begin(), std::upper_bound(ids.begin(), ids.end(), last_served_), ids.end());
  for (const RequestId id : ids) {
    const int rows_left = limits_.max_step_rows - static_cast<int>(step.tokens.size());
    if (step.ids.size() >= share || rows_left <= 0) return;
    const auto found = running_.find(id);
    if (found == running_.end()) continue;  // put back in favour of one before it
    if (append(step, id, found->second, 1) > 0) last_served_ = id;
  }
}

// Prompts that run, then those that wait.
void BatchScheduler::take_prompts(Step& step, size_t share, int prompt_rows) {
  const int room = std::min(prompt_rows, limits_.max_step_rows - static_cast<int>(step.tokens.size()));
  for (const RequestId id : resting(/*streaming=*/false)) {
    if (step.ids.size() >= share || step.prompt_rows >= room) return;
    const auto found = running_.find(id);
    if (found != running_.end()) step.prompt_rows += append(step, id, found->second, room - step.prompt_rows);
  }
  while (step.ids.size() < share && step.prompt_rows < room) {
    if (waiting_.empty()) return;
    const RequestId id = waiting_.front().first;
    if (!admit()) return;
    step.prompt_rows += append(step, id, running_.at(id), room - step.prompt_rows);
  }
}

std::optional<BatchScheduler::Step> BatchScheduler::next(int prompt_rows) {
  const size_t demand = running_.size() + admissible();
  const size_t stages = static_cast<size_t>(limits_.num_stages);
  const size_t share = std::max<size_t>(1, (demand + stages - 1) / stages);  // of nothing it finds one that shares its pages
  const bool any_streams = std::any_of(running_.begin(), running_.end(), [](const auto& entry) { return entry.second.completion > 0; });
  Step step;
  step.plan.kind = StepKind::kCompute;
  take_turns(step, share);
  take_prompts(step, share, any_streams ? prompt_rows : limits_.max_step_rows);
  if (step.ids.empty()) return std::nullopt;
  return step;
}

std::vector<BatchScheduler::Sampled> BatchScheduler::complete(const Step& step, std::vector<SampledToken> sampled) {
  PENSTOCK_CHECK(sampled.size() == static_cast<size_t>(step.plan.answers()), "{} answers, expected {}", sampled.size(), step.plan.answers());
  std::vector<Sampled> out;
  size_t next_sample = 0;
  for (size_t i = 0; i < step.ids.size(); ++i) {
    const SequenceStep& part = step.plan.sequences[i];
    SampledToken* token = part.answers() ? &sampled[next_sample++] : nullptr;
    Sequence& sequence = running_.at(step.ids[i]);
    sequence.in_flight = false;
    if (sequence.removed) {
      release(step.ids[i]);
      continue;
    }
    if (!token) continue;
    if (!part.samples) {
      out.push_back({step.ids[i], std::move(*token), false, false, 0});
      continue;
    }
    sequence.tokens.push_back(token->id);
    ++sequence.completion;
    const bool at_limit = sequence.completion >= sequence.input.max_tokens || sequence.size() >= limits_.max_sequence_tokens;
    out.push_back({step.ids[i], std::move(*token), true, at_limit, sequence.cached});
  }
  return out;
}

EngineStats BatchScheduler::stats() const {
  const auto count = [](size_t number) { return static_cast<int64_t>(number); };
  return {count(running_.size()), count(waiting_.size()), pages_.num_pages() - pages_.available(), pages_.num_pages(), prefix_queries_, prefix_hits_,
          preemptions_};
}

}  // namespace penstock::engine
