#pragma once
// Which sequences run in the next step: continuous batching at token level.
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "engine/engine.h"
#include "engine/step_plan.h"

namespace penstock::engine {

struct SchedulerLimits {
  int max_sequences = 8;          // that hold a KV slot at once
  int max_waiting = 256;          // more are refused
  int max_step_rows = 512;        // a long prompt is computed in pieces, so that it does not stall the others' tokens
  int max_sequence_tokens = 2048; // prompt and completion
  int num_stages = 1;             // micro-batches in flight
};

// A sequence as the scheduler knows it.
struct SequenceInput {
  std::vector<int32_t> prompt;
  int max_tokens = 1;
  SamplingChoice choice;  // position is filled in by the scheduler
};

// Keeps up to num_stages disjoint steps in flight, each with its share ceil(running / num_stages) of the sequences, so that no stage waits
// for another's turn. A sequence is in one step at a time: its next token depends on the last.
//
// Threads: owned by the engine loop. Pure bookkeeping: no tensors, no clock.
class BatchScheduler {
 public:
  explicit BatchScheduler(const SchedulerLimits& limits) : limits_(limits), free_slots_(make_slots(limits.max_sequences)) {}

  // false when the queue is full. REQUIRES: 1 <= prompt size < max_sequence_tokens.
  [[nodiscard]] bool add(RequestId id, SequenceInput input);

  // The sequence is in no later step; its slot is free when its running step has come back. Unknown ids are ignored.
  void remove(RequestId id);

  // A step of sequences that are in none yet, with the tokens of its rows; nullopt when nothing can run now.
  struct Step {
    StepPlan plan;
    std::vector<int32_t> tokens;   // of all rows, for the first stage
    std::vector<RequestId> ids;    // of plan.sequences
  };
  [[nodiscard]] std::optional<Step> next();

  // A step has come back: ids of its samples, in order. Returns what each sampled sequence got; the caller removes those that end.
  struct Sampled {
    RequestId id = 0;
    int32_t token = 0;
    bool at_limit = false;  // max_tokens or the model's length is reached
  };
  [[nodiscard]] std::vector<Sampled> complete(const Step& step, const std::vector<int32_t>& sampled);

  [[nodiscard]] size_t running() const { return running_.size(); }
  [[nodiscard]] size_t waiting() const { return waiting_.size(); }
  [[nodiscard]] bool idle() const { return running_.empty() && waiting_.empty(); }

 private:
  struct Sequence {
    SequenceInput input;
    std::vector<int32_t> tokens;  // prompt and completion
    int computed = 0;             // positions in the cache, or on their way into it
    int completion = 0;
    int slot = -1;
    bool in_flight = false;
    bool removed = false;
  };
  static std::vector<int> make_slots(int count);
  void admit();
  void release(RequestId id);
  void append(Step& step, RequestId id, Sequence& sequence, int max_rows) const;

  const SchedulerLimits limits_;
  std::vector<int> free_slots_;
  std::deque<std::pair<RequestId, SequenceInput>> waiting_;
  std::map<RequestId, Sequence> running_;  // by age: ids rise
  RequestId last_served_ = 0;              // steps take turns through the sequences
};

}  // namespace penstock::engine
