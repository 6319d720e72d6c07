#include "frontend/sequence_table.h"

#include <utility>

namespace penstock::frontend {

bool SequenceTable::forgotten(const Sequence& sequence, Clock::time_point now) const {
  if (sequence.running || sequence.waiting > 0) return false;
  const bool too_old = limits_.max_life > milliseconds(0) && now - sequence.begun >= limits_.max_life;
  return sequence.last_seen || too_old || now - sequence.idle_since >= limits_.max_idle;
}

std::optional<Error> SequenceTable::admit(const std::string& id, Clock::time_point now) {
  std::erase_if(sequences_, [&](const auto& entry) { return forgotten(entry.second, now); });
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) {
    if (limits_.max_sequences > 0 && sequences_.size() >= limits_.max_sequences) {
      return error(Code::kResourceExhausted, "{} sequences are open (maxNumSequence); try again later", sequences_.size());
    }
    Sequence fresh;
    fresh.begun = fresh.idle_since = now;
    fresh.waiting = 1;
    sequences_.emplace(id, fresh);
    return std::nullopt;
  }
  Sequence& sequence = found->second;
  if (limits_.max_life > milliseconds(0) && now - sequence.begun >= limits_.max_life) {
    return error(Code::kFailedPrecondition, "the sequence has lasted longer than {} ms (sequenceTimeoutMSec); begin another one",
                 limits_.max_life.count());
  }
  if (limits_.max_waiting > 0 && sequence.waiting >= limits_.max_waiting) {
    return error(Code::kResourceExhausted, "{} requests of the sequence wait (maxSequenceJobQueueSize); try again later", sequence.waiting);
  }
  sequence.waiting += 1;
  sequence.last_seen = false;
  return std::nullopt;
}

bool SequenceTable::may_start(const std::string& id) const { return !sequences_.at(id).running; }

std::optional<int> SequenceTable::group(const std::string& id) const { return sequences_.at(id).group; }

bool SequenceTable::started(const std::string& id, int group) {
  Sequence& sequence = sequences_.at(id);
  sequence.waiting -= 1;
  sequence.running = true;
  sequence.group = group;
  return !std::exchange(sequence.has_run, true);
}

void SequenceTable::finished(const std::string& id, bool last, Clock::time_point now) {
  Sequence& sequence = sequences_.at(id);
  sequence.running = false;
  sequence.last_seen = sequence.last_seen || last;
  forget_idle(id, now);
}

void SequenceTable::dropped(const std::string& id, Clock::time_point now) {
  sequences_.at(id).waiting -= 1;
  forget_idle(id, now);
}

void SequenceTable::forget_idle(const std::string& id, Clock::time_point now) {
  Sequence& sequence = sequences_.at(id);
  sequence.idle_since = now;
  if (forgotten(sequence, now)) sequences_.erase(id);
}

void SequenceTable::group_lost(int group) {
  for (auto& [id, sequence] : sequences_) {
    if (sequence.group == group) sequence.group.reset();
  }
}

}  // namespace penstock::frontend
