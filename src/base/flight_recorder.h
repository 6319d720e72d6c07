#pragma once
// The last things that a rank did, kept for the moment in which it gets stuck.
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"

namespace penstock {

// A short word that is copied with its entry; cut after 23 bytes.
class FlightName {
 public:
  constexpr FlightName() = default;
  constexpr FlightName(std::string_view text) {  // NOLINT: implicit on purpose, {.name = "forward"}
    for (size_t i = 0; i < text.size() && i + 1 < text_.size(); ++i) text_[i] = text[i];
  }
  constexpr FlightName(const char* text) : FlightName(std::string_view(text)) {}  // NOLINT: as above
  [[nodiscard]] constexpr std::string_view view() const { return text_.data(); }

 private:
  std::array<char, 24> text_{};
};

// One action, message, collective or phase of a step.
struct FlightEntry {
  enum class Kind : int32_t {
    kAction,      // of the schedule, computation or the wait for what it needs; `stage` and `microbatch`
    kMessage,     // "send" or "recv"; `peer` and `tag`
    kCollective,  // of `group`, its `sequence`-th
    kPhase,       // of a step or a run: "optimizer", "validation"
    kBackground,  // what another thread does meanwhile: "checkpoint write"
  };
  Kind kind = Kind::kPhase;
  FlightName name;
  int32_t group = -1;       // FlightRecorder::add_group()
  int32_t peer = -1, tag = -1;           // `peer` is a rank of the group
  int32_t stage = -1, microbatch = -1;
  int32_t bucket = -1;      // of gradients
  int64_t sequence = 0;     // from 1; the same on every rank of the group
  int64_t bytes = 0;
  // The recorder's.
  int64_t step = 0;
  int64_t posted_us = 0;    // now_us()
  int64_t waited_us = 0;    // since when a thread waits for it; 0 = none has
  int64_t finished_us = 0;  // 0 = not yet
};

// Keeps the last kEntries entries of one rank in a ring.
//
// Threads:  any number write, without locks: a slot of the ring belongs to the one that took its number. snapshot() may run at any time, on any
//           thread, also while others write or are stuck; it leaves out an entry that is being written.
// Cost:     about 0.13 us an entry, begun and ended, most of it the clock's.
// Lifetime: outlives all that records into it.
class FlightRecorder {
 public:
  static constexpr size_t kEntries = 2000;

  struct Group {
    std::string name;
    std::vector<int> ranks;  // of the world, by rank of the group
  };
  struct Snapshot {
    int64_t step = 0;           // under way, or the last one
    int64_t step_start_us = 0;  // 0: between steps
    int64_t taken_us = 0;
    std::vector<Group> groups;
    std::vector<FlightEntry> entries;  // oldest first
  };

  FlightRecorder() = default;
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecorder& operator=(const FlightRecorder&) = delete;

  // The group's number, for its entries.
  [[nodiscard]] int add_group(std::string name, std::vector<int> ranks) EXCLUDES(mutex_);

  // Entries after this belong to `step`, which is under way until end_step().
  void begin_step(int64_t step);
  void end_step() { step_start_us_ = 0; }
  // The last one that began; 0 before the first.
  [[nodiscard]] int64_t step() const { return step_; }
  // When the step under way began; 0 between steps.
  [[nodiscard]] int64_t step_start_us() const { return step_start_us_; }

  // Returns the entry's number for the two below.
  uint64_t begin(FlightEntry entry);
  void wait_begins(uint64_t id);
  void end(uint64_t id);
  void end(uint64_t id, int64_t finished_us);

  [[nodiscard]] Snapshot snapshot() const EXCLUDES(mutex_);

  // Called at the end of each begin(), on its thread: where tests make a rank stop. To be set before anything is recorded.
  void set_on_begin(std::function<void(const FlightEntry&, int64_t step)> on_begin) { on_begin_ = std::move(on_begin); }

 private:
  static_assert(std::is_trivially_copyable_v<FlightEntry> && sizeof(FlightEntry) % sizeof(uint64_t) == 0);
  static constexpr size_t kWords = sizeof(FlightEntry) / sizeof(uint64_t);
  // Note [Torn entries]
  // `id` is 0 while the words are written. Words are stored with release and loaded with acquire, so a reader that has seen a word of a later
  // entry also sees that `id` has changed.
  struct Slot {
    std::atomic<uint64_t> id{0};
    std::array<std::atomic<uint64_t>, kWords> words{};
  };
  Slot& slot(uint64_t id) { return slots_[(id - 1) % kEntries]; }
  void set_time(uint64_t id, size_t offset, int64_t time_us);

  std::atomic<uint64_t> last_id_{0};
  std::atomic<int64_t> step_{0}, step_start_us_{0};
  std::vector<Slot> slots_ = std::vector<Slot>(kEntries);
  std::function<void(const FlightEntry&, int64_t)> on_begin_;
  mutable Mutex mutex_;
  std::vector<Group> groups_ GUARDED_BY(mutex_);
};

// An entry from construction to destruction, which the thread is inside of. One that an exception leaves stays unfinished: it is where the rank came to grief.
// A null recorder records nothing.
class FlightScope {
 public:
  FlightScope(FlightRecorder* recorder, const FlightEntry& entry);
  ~FlightScope();
  FlightScope(const FlightScope&) = delete;
  FlightScope& operator=(const FlightScope&) = delete;

 private:
  FlightRecorder* const recorder_;
  const int exceptions_;
  const uint64_t id_;
};

}  // namespace penstock
