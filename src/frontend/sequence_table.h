#pragma once
// The sequences of requests of one model: each one's requests run one after another, on the worker group that ran its first.
#include <cstddef>
#include <map>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"

namespace penstock::frontend {

struct SequenceLimits {
  size_t max_sequences = 0;   // at once (maxNumSequence); 0 = any number
  size_t max_waiting = 0;     // requests of one sequence, besides the one that runs (maxSequenceJobQueueSize); 0 = any number
  milliseconds max_idle{0};   // how long one is kept without a request (sequenceMaxIdleMSec); 0 = not at all
  milliseconds max_life{0};   // how long one takes new requests (sequenceTimeoutMSec); 0 = for ever
};

// Bookkeeping only: it holds no requests and wakes nobody. Whoever queues requests tells it what becomes of each and asks which may start.
// A sequence that was idle for too long is forgotten when the next request comes.
//
// Threads: one at a time.
class SequenceTable {
 public:
  explicit SequenceTable(SequenceLimits limits) : limits_(limits) {}

  // One more request waits. Errors, and then it does not wait: kResourceExhausted when there are too many sequences, or too many wait in this one;
  // kFailedPrecondition when this one is too old.
  [[nodiscard]] std::optional<Error> admit(const std::string& id, Clock::time_point now);
  // None of it runs.
  [[nodiscard]] bool may_start(const std::string& id) const;
  // Where its requests have to run; nullopt: anywhere.
  [[nodiscard]] std::optional<int> group(const std::string& id) const;
  // A request that has waited runs now. true: it is the first of its sequence that does.
  [[nodiscard]] bool started(const std::string& id, int group);
  // The one that ran has ended. `last`: the client says that the sequence ends with it.
  void finished(const std::string& id, bool last, Clock::time_point now);
  // A request that has waited ended without having run.
  void dropped(const std::string& id, Clock::time_point now);
  // The group has lost what it knew of its sequences: their next requests run anywhere.
  void group_lost(int group);

  [[nodiscard]] size_t size() const { return sequences_.size(); }

 private:
  struct Sequence {
    Clock::time_point begun;
    Clock::time_point idle_since;
    size_t waiting = 0;
    bool running = false;
    bool has_run = false;  // one of its requests has begun to run
    bool last_seen = false;
    std::optional<int> group;
  };
  [[nodiscard]] bool forgotten(const Sequence& sequence, Clock::time_point now) const;
  void forget_idle(const std::string& id, Clock::time_point now);

  const SequenceLimits limits_;
  std::map<std::string, Sequence> sequences_;
};

}  // namespace penstock::frontend
