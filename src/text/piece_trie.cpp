#include "text/piece_trie.h"

namespace penstock::text {

void PieceTrie::add(std::string_view piece, int32_t id) {
  PENSTOCK_CHECK(!piece.empty() && id >= 0, "piece '{}' with id {}", piece, id);
  uint32_t node = 0;
  for (const char byte : piece) {
    const uint64_t key = key_of(node, byte);
    if (const uint32_t* child = children_.find(key)) {
      node = *child;
      continue;
    }
    node = static_cast<uint32_t>(ids_.size());
    children_.insert(key, node);
    ids_.push_back(kNone);
  }
  ids_[node] = id;
  starts_[static_cast<unsigned char>(piece.front())] = true;
}

}  // namespace penstock::text
