#pragma once
// Which sequences run in the next step: continuous batching at token level over a paged KV cache.
#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/page_pool.h"
#include "engine/step_plan.h"

namespace penstock::engine {

struct SchedulerLimits {
  int max_sequences = 8;          // that run at once, each in a slot
  int max_waiting = 256;          // more are refused
  int max_step_rows = 512;        // a long prompt is computed in pieces
  int max_sequence_tokens = 2048; // prompt and completion
  int num_stages = 1;             // micro-batches in flight
  int num_pages = 1024;           // of the KV cache; at least one sequence must fit
};

// A sequence as the scheduler knows it.
struct SequenceInput {
  std::vector<int32_t> prompt;
  int max_tokens = 1;
  SamplingChoice choice = {};
  std::string salt = {};  // pages are shared among sequences of one salt
  std::vector<int32_t> generated = {};  // tokens of the completion that are known already
  int prompt_logprobs = -1;  // alternatives that are told of each token of the prompt but the first, besides itself; -1 = nothing is
};

inline constexpr int kMostTargets = 64;  // of a sequence in a step: rows of logits are as wide as the vocabulary

// Keeps up to num_stages disjoint steps in flight, each with its share ceil(demand / num_stages) of the sequences, so that no stage waits
// for another's turn. A sequence is in one step at a time: its next token depends on the last.
//
// A step takes the sequences that go on by a token first, then prompts, the oldest first, then those that wait, in order.
//
// Note [Pages of a sequence]
// A sequence takes pages as it grows. Every page that is full is published when the step that fills it is planned: every stage computes steps in
// the order of their plans, so whoever finds the page reads it after it was written. A sequence looks for pages that others have computed
// wherever it is at the beginning of one, not only at its start: of many equal prompts that come together, one computes and the others follow it.
// A prompt whose log probabilities are asked for is computed whole, kMostTargets rows at a time, for they come from the logits of its rows.
//
// Note [Preemption]
// When a sequence needs a page and all are held, the youngest one that is in no step is put back among those that wait, by its age, with its tokens.
// It is computed again from them, or from what is still in its pages. The oldest sequence is never put back, and one sequence always fits, so all
// come to their ends. A sequence is let in only if its tokens fit beside what those that run are known to need yet, so this is rare.
//
// Threads: owned by the engine loop. Pure bookkeeping: no tensors, no clock.
class BatchScheduler {
 public:
  explicit BatchScheduler(const SchedulerLimits& limits);

  // false when the queue is full. REQUIRES: 1 <= prompt size; prompt and generated < max_sequence_tokens; generated < max_tokens.
  [[nodiscard]] bool add(RequestId id, SequenceInput input);

  // The sequence is in no later step; its slot and pages are free when its running step has come back. Unknown ids are ignored.
  void remove(RequestId id);

  // A step of sequences that are in none yet, with the tokens of its rows; nullopt when nothing can run now.
  struct Step {
    StepPlan plan;
    std::vector<int32_t> tokens;   // of all rows, for the first stage
    std::vector<RequestId> ids;    // of plan.sequences
    int prompt_rows = 0;           // those that are not a sequence's last token
  };
  // `prompt_rows`: at most so many rows of prompts, while any sequence streams.
  [[nodiscard]] std::optional<Step> next(int prompt_rows);
  [[nodiscard]] std::optional<Step> next() { return next(limits_.max_step_rows); }

  // A step has come back: its samples, in order. Returns what each sampled sequence got; the caller removes those that end.
  struct Sampled {
    RequestId id = 0;
    SampledToken token;
    bool sampled = true;    // false: the token brings log probabilities of the prompt alone
    bool at_limit = false;  // max_tokens or the model's length is reached
    int cached_tokens = 0;  // of the prompt, that were not computed for it
  };
  [[nodiscard]] std::vector<Sampled> complete(const Step& step, std::vector<SampledToken> sampled);

  [[nodiscard]] size_t running() const { return running_.size(); }
  [[nodiscard]] size_t waiting() const { return waiting_.size(); }
  [[nodiscard]] bool idle() const { return running_.empty() && waiting_.empty(); }
  [[nodiscard]] EngineStats stats() const;

 private:
  struct Sequence {
    SequenceInput input;
    std::vector<int32_t> tokens;   // prompt and completion
    int completion = 0;
    int answered = 0;              // positions of the prompt whose next token's log probability was told, or is on its way
    int cached = 0;                // tokens of the prompt that were found, when it first ran
    bool ran = false;
    // While it runs:
    int slot = -1;
    int computed = 0;              // positions in the cache, or on their way into it
    std::vector<int32_t> pages;    // of positions 0 …
    size_t told = 0;               // of them, how many the stages know
    int published = 0;             // of them, how many are found under `prefix` or its beginnings
    PagePool::Prefix prefix = 0;
    bool in_flight = false;
    bool removed = false;

    [[nodiscard]] int size() const { return static_cast<int>(tokens.size()); }
    // Of the rows of positions begin … end − 1, those that tell a log probability that is asked for: from the first one, so many.
    [[nodiscard]] std::pair<int, int> asked(int begin, int end) const {
      const int first = std::max(begin, answered), last = std::min(end, static_cast<int>(input.prompt.size()) - 1);
      return {first, input.prompt_logprobs < 0 ? 0 : std::max(0, last - first)};
    }
    [[nodiscard]] int left() const { return size() - computed; }
    [[nodiscard]] bool streams() const { return completion > 0 && left() == 1; }
  };
  using Running = std::map<RequestId, Sequence>;

  void take_turns(Step& step, size_t share);
  void take_prompts(Step& step, size_t share, int prompt_rows);
  [[nodiscard]] size_t admissible() const;
  [[nodiscard]] bool admit();
  [[nodiscard]] int pages_promised() const;
  void share_pages(Sequence& sequence);
  static void ask(SequenceStep& part, Sequence& sequence);
  [[nodiscard]] bool hold_pages(RequestId id, Sequence& sequence, int tokens);
  [[nodiscard]] bool preempt_another(RequestId id);
  void publish(Sequence& sequence);
  [[nodiscard]] int append(Step& step, RequestId id, Sequence& sequence, int max_rows);
  void leave(Sequence& sequence);
  void release(RequestId id);
  [[nodiscard]] std::vector<RequestId> resting(bool streaming) const;

  const SchedulerLimits limits_;
  std::vector<int> free_slots_;
  PagePool pages_;
  std::deque<std::pair<RequestId, Sequence>> waiting_;  // by age
  Running running_;                                     // by age: ids rise, and nobody overtakes
  RequestId last_served_ = 0;                           // steps take turns through the sequences that stream
  int64_t prefix_queries_ = 0, prefix_hits_ = 0, preemptions_ = 0;
};

}  // namespace penstock::engine
