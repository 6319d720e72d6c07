#include "base/flight_recorder.h"

#include <cstddef>
#include <exception>

#include "base/clock.h"

namespace penstock {

int FlightRecorder::add_group(std::string name, std::vector<int> ranks) {
  MutexLock lock(mutex_);
  groups_.push_back({std::move(name), std::move(ranks)});
  return static_cast<int>(groups_.size()) - 1;
}

void FlightRecorder::begin_step(int64_t step) {
  step_ = step;
  step_start_us_ = now_us();
}

uint64_t FlightRecorder::begin(FlightEntry entry) {
  entry.step = step_.load(std::memory_order_relaxed);
  entry.posted_us = now_us();
  uint64_t words[kWords];
  std::memcpy(words, &entry, sizeof(entry));
  const uint64_t id = last_id_.fetch_add(1, std::memory_order_relaxed) + 1;
  Slot& to = slot(id);
  to.id.store(0, std::memory_order_relaxed);
  for (size_t i = 0; i < kWords; ++i) to.words[i].store(words[i], std::memory_order_release);
  to.id.store(id, std::memory_order_release);
  if (on_begin_) on_begin_(entry, entry.step);
  return id;
}

// An entry that has left the ring meanwhile stays as it is.
void FlightRecorder::set_time(uint64_t id, size_t offset, int64_t time_us) {
  Slot& to = slot(id);
  if (to.id.load(std::memory_order_acquire) == id) to.words[offset / sizeof(uint64_t)].store(static_cast<uint64_t>(time_us), std::memory_order_release);
}

void FlightRecorder::wait_begins(uint64_t id) { set_time(id, offsetof(FlightEntry, waited_us), now_us()); }
void FlightRecorder::end(uint64_t id) { end(id, now_us()); }
void FlightRecorder::end(uint64_t id, int64_t finished_us) { set_time(id, offsetof(FlightEntry, finished_us), finished_us); }

FlightRecorder::Snapshot FlightRecorder::snapshot() const {
  Snapshot snapshot;
  {
    MutexLock lock(mutex_);
    snapshot.groups = groups_;
  }
  snapshot.step = step_;
  snapshot.step_start_us = step_start_us_;
  const uint64_t last = last_id_.load(std::memory_order_acquire);
  for (uint64_t id = last > kEntries ? last - kEntries + 1 : 1; id <= last; ++id) {
    const Slot& from = slots_[(id - 1) % kEntries];
    if (from.id.load(std::memory_order_acquire) != id) continue;
    uint64_t words[kWords];
    for (size_t i = 0; i < kWords; ++i) words[i] = from.words[i].load(std::memory_order_acquire);
    if (from.id.load(std::memory_order_relaxed) != id) continue;
    std::memcpy(&snapshot.entries.emplace_back(), words, sizeof(FlightEntry));
  }
  snapshot.taken_us = now_us();
  return snapshot;
}

FlightScope::FlightScope(FlightRecorder* recorder, const FlightEntry& entry)
    : recorder_(recorder), exceptions_(std::uncaught_exceptions()), id_(recorder != nullptr ? recorder->begin(entry) : 0) {
  if (recorder_ != nullptr) recorder_->wait_begins(id_);
}

FlightScope::~FlightScope() {
  if (recorder_ != nullptr && std::uncaught_exceptions() == exceptions_) recorder_->end(id_);
}

}  // namespace penstock
