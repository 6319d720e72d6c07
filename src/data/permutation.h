#pragma once
// A random order of many things without a table.
#include <cstdint>

namespace penstock::data {

// SplitMix64's finalizer (Steele, Lea and Flood 2014): the same from every compiler and library.
[[nodiscard]] inline uint64_t mixed(uint64_t z) {
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// A bijection of 0 … n − 1 chosen by a key: a balanced Feistel network over the next power of four, walked until it lands inside
// (Black and Rogaway 2002). On average less than four walks of eight rounds.
class Permutation {
 public:
  // REQUIRES: 1 <= n < 2^62.
  Permutation(uint64_t n, uint64_t key) : n_(n), key_(key) {
    while (uint64_t{1} << (2 * half_bits_) < n) ++half_bits_;
  }
  // REQUIRES: i < n.
  [[nodiscard]] uint64_t operator()(uint64_t i) const {
    do {
      i = once(i);
    } while (i >= n_);
    return i;
  }

 private:
  [[nodiscard]] uint64_t once(uint64_t i) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = i >> half_bits_, right = i & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (mixed(key_ + mixed(right * kRounds + round)) & mask);
      left = right;
      right = next;
    }
    return left << half_bits_ | right;
  }

  static constexpr uint64_t kRounds = 8;
  uint64_t n_;
  uint64_t key_;
  int half_bits_ = 1;
};

}  // namespace penstock::data
