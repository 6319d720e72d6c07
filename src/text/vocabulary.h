#pragma once
// Which piece of text has which id.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::text {

constexpr int32_t kNoToken = -1;
constexpr int64_t kMaxVocabulary = 1 << 20;  // a larger id would only make us allocate

// Pieces by id and ids by piece. Ids may have holes: an id without a piece stands for nothing.
//
// Threads: const methods may be called from any thread.
class Vocabulary {
 public:
  // The first id of a piece is the one that find() gives. Throws Error kDataLoss for an id out of range or one that has another piece already.
  void add(int64_t id, std::string piece, const std::string& where);
  // As add(), for a piece that no text is ever cut into: find() does not know it.
  void add_unmatched(int64_t id, std::string piece, const std::string& where);

  // kNoToken when there is no such piece.
  [[nodiscard]] int32_t find(std::string_view piece) const;
  // REQUIRES: 0 <= id < size().
  [[nodiscard]] const std::string& piece(int32_t id) const { return pieces_[static_cast<size_t>(id)]; }
  [[nodiscard]] bool has(int64_t id) const { return id >= 0 && id < size() && used_[static_cast<size_t>(id)]; }
  // The highest id + 1.
  [[nodiscard]] int32_t size() const { return static_cast<int32_t>(pieces_.size()); }
  [[nodiscard]] size_t longest() const { return longest_; }  // bytes

 private:
  struct Slot {
    uint32_t check = 0;  // upper half of the piece's hash
    int32_t id = kNoToken;
  };
  [[nodiscard]] size_t slot_of(std::string_view piece, uint64_t hash) const;
  void grow();

  std::vector<std::string> pieces_;
  std::vector<bool> used_;
  std::vector<Slot> slots_ = std::vector<Slot>(16);  // a power of two of them, at most half full
  size_t matched_ = 0;
  size_t longest_ = 0;
};

}  // namespace penstock::text
