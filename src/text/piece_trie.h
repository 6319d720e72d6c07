#pragma once
// Finds the pieces that a text starts with.
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/flat_map.h"

namespace penstock::text {

// Threads: const methods may be called from any thread at once.
class PieceTrie {
 public:
  static constexpr int32_t kNone = -1;

  // The last id of a piece counts. REQUIRES: piece is not empty, id >= 0.
  void add(std::string_view piece, int32_t id);
  [[nodiscard]] bool empty() const { return ids_.size() == 1; }

  // Calls `take(length, id)` for each piece that `text` starts with, the shortest first.
  template <typename Take>
  void for_each_prefix(std::string_view text, Take take) const {
    if (text.empty() || !starts_[static_cast<unsigned char>(text.front())]) return;
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const uint32_t* child = children_.find(key_of(node, text[i]));
      if (child == nullptr) return;
      node = *child;
      if (ids_[node] != kNone) take(i + 1, ids_[node]);
    }
  }

 private:
  static uint64_t key_of(uint32_t node, char byte) { return uint64_t{node} << 8 | static_cast<unsigned char>(byte); }

  FlatMap<uint32_t> children_;                           // by node and byte; node 0 is the root
  std::vector<int32_t> ids_ = {kNone};                   // by node
  std::vector<bool> starts_ = std::vector<bool>(256);    // bytes that pieces start with
};

}  // namespace penstock::text
