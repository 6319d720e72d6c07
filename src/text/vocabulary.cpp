#include "text/vocabulary.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace penstock::text {
namespace {

constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;

uint64_t mixed(uint64_t value) {
  value *= kMultiplier;
  return value ^ (value >> 29);
}

// Eight bytes at a time: pieces are short and looked up for every word of gigabytes.
uint64_t hash_of(std::string_view text) {
  uint64_t hash = mixed(text.size() + 1);
  while (text.size() >= 8) {
    uint64_t word;
    std::memcpy(&word, text.data(), 8);
    hash = mixed(hash ^ word);
    text.remove_prefix(8);
  }
  uint64_t rest = 0;
  if (!text.empty()) std::memcpy(&rest, text.data(), text.size());
  return mixed(mixed(hash ^ rest));
}

}  // namespace

void Vocabulary::add_unmatched(int64_t id, std::string piece, const std::string& where) {
  if (id < 0 || id >= kMaxVocabulary) throw error(Code::kDataLoss, "{}: expected a token id from 0 to {}, found {}", where, kMaxVocabulary - 1, id);
  const auto index = static_cast<size_t>(id);
  if (index >= pieces_.size()) {
    pieces_.resize(index + 1);
    used_.resize(index + 1);
  }
  if (used_[index]) throw error(Code::kDataLoss, "{}: id {} has two tokens", where, id);
  used_[index] = true;
  longest_ = std::max(longest_, piece.size());
  pieces_[index] = std::move(piece);
}

void Vocabulary::add(int64_t id, std::string piece, const std::string& where) {
  add_unmatched(id, std::move(piece), where);
  if (2 * (matched_ + 1) > slots_.size()) grow();
  const std::string& added = pieces_[static_cast<size_t>(id)];
  const uint64_t hash = hash_of(added);
  Slot& slot = slots_[slot_of(added, hash)];
  if (slot.id != kNoToken) return;
  slot = {static_cast<uint32_t>(hash >> 32), static_cast<int32_t>(id)};
  ++matched_;
}

size_t Vocabulary::slot_of(std::string_view piece, uint64_t hash) const {
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask;; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.id == kNoToken) return at;
    if (slot.check == static_cast<uint32_t>(hash >> 32) && pieces_[static_cast<size_t>(slot.id)] == piece) return at;
  }
}

int32_t Vocabulary::find(std::string_view piece) const { return piece.size() > longest_ ? kNoToken : slots_[slot_of(piece, hash_of(piece))].id; }

void Vocabulary::grow() {
  std::vector<Slot> old(2 * slots_.size());
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.id == kNoToken) continue;
    const std::string& piece = pieces_[static_cast<size_t>(slot.id)];
    slots_[slot_of(piece, hash_of(piece))] = slot;
  }
}

}  // namespace penstock::text
