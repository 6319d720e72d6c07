#pragma once
// A hash map for what is built once and looked up billions of times: one array, no pointers.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"

namespace penstock::text {

// Keys are any 64-bit numbers but kNoKey. Values are small and copied. The last value of a key stays.
//
// Threads: const methods may be called from any thread.
template <typename Value>
class FlatMap {
 public:
  static constexpr uint64_t kNoKey = ~uint64_t{0};

  // Room for `count` keys without growing.
  explicit FlatMap(size_t count = 0) { resize(count); }

  void insert(uint64_t key, Value value) {
    PENSTOCK_CHECK(key != kNoKey, "the key is the mark of an empty slot");
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[slot_of(key)];
    if (slot.key != key) ++size_;
    slot = {key, value};
  }

  // Null when the key is absent.
  [[nodiscard]] const Value* find(uint64_t key) const {
    const Slot& slot = slots_[slot_of(key)];
    return slot.key == key ? &slot.value : nullptr;
  }

  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Slot {
    uint64_t key = kNoKey;
    Value value{};
  };

  // Where the key is, or would be.
  [[nodiscard]] size_t slot_of(uint64_t key) const {
    uint64_t mixed = key * 0x9E3779B97F4A7C15u;
    mixed ^= mixed >> 32;
    size_t at = mixed & mask_;
    while (slots_[at].key != key && slots_[at].key != kNoKey) at = (at + 1) & mask_;
    return at;
  }

  void resize(size_t count) {
    size_t size = 16;
    while (size < 2 * (count + 1)) size *= 2;
    slots_.assign(size, Slot{});
    mask_ = size - 1;
  }

  void grow() {
    std::vector<Slot> old = std::move(slots_);
    resize(old.size());
    for (const Slot& slot : old) {
      if (slot.key != kNoKey) slots_[slot_of(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;  // a power of two of them, at most half full
  size_t mask_ = 0;
  size_t size_ = 0;
};

}  // namespace penstock::text
