#include "text/token_masks.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace penstock::text {

TokenMasks::TokenMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie) : trie_(std::move(trie)), states_(std::move(grammar)) {}

size_t TokenMasks::bytes() const {
  MutexLock lock(mutex_);
  return states_.bytes() + masks_.size() * mask_bytes();
}

void TokenMasks::forget() {
  MutexLock lock(mutex_);
  forget_all();
}

void TokenMasks::forget_all() {
  states_.forget();
  masks_.clear();
  ++epoch_;
}

// The progress's place, after what was forgotten is found again.
GrammarStates::Place TokenMasks::place_of(Progress& progress) {
  states_.begin_work();
  if (states_.bytes() > kKeptPlaces) forget_all();
  if (progress.epoch == epoch_) return progress.place;
  progress.place = states_.start();
  for (const char byte : progress.text) {
    if (progress.place != GrammarStates::kNowhere) progress.place = states_.next(progress.place, static_cast<uint8_t>(byte));
  }
  progress.epoch = epoch_;
  return progress.place;
}

std::shared_ptr<const TokenMasks::Mask> TokenMasks::make(GrammarStates::Place place) {
  Mask mask;
  mask.may_end = states_.accepts(place);
  mask.bits.assign((static_cast<size_t>(trie_->vocab_size()) + 63) / 64, 0);
  std::vector<GrammarStates::Place> way(trie_->longest() + 1);  // by depth
  way[0] = place;
  for (size_t i = 0; i < trie_->size();) {
    const TokenTrie::Node& node = trie_->node(i);
    const GrammarStates::Place next = states_.next(way[node.depth], node.byte);
    if (next == GrammarStates::kNowhere) {
      i = node.after;
      continue;
    }
    way[node.depth + 1u] = next;
    const size_t end = trie_->node(++i).tokens;
    for (size_t t = node.tokens; t < end; ++t) {
      const auto id = static_cast<size_t>(trie_->token(t));
      mask.bits[id / 64] |= uint64_t{1} << (id % 64);
      mask.any = true;
    }
  }
  return std::make_shared<const Mask>(std::move(mask));
}

std::shared_ptr<const TokenMasks::Mask> TokenMasks::mask(Progress& progress) {
  MutexLock lock(mutex_);
  const GrammarStates::Place place = place_of(progress);
  if (place == GrammarStates::kNowhere) return std::make_shared<const Mask>();
  if (const auto known = masks_.find(place); known != masks_.end()) return known->second;
  if ((masks_.size() + 1) * mask_bytes() > kKeptMasks) masks_.clear();
  return masks_[place] = make(place);
}

TokenMasks::Next TokenMasks::add(Progress& progress, int32_t token) {
  MutexLock lock(mutex_);
  GrammarStates::Place place = place_of(progress);
  const std::string_view bytes = trie_->bytes_of(token);
  for (const char byte : bytes) {
    if (place != GrammarStates::kNowhere) place = states_.next(place, static_cast<uint8_t>(byte));
  }
  if (bytes.empty() || place == GrammarStates::kNowhere) return Next::kNotAllowed;
  progress.text += bytes;
  progress.place = place;
  return states_.goes_on(place) ? Next::kGoesOn : Next::kComplete;
}

ConstrainedText::ConstrainedText(std::shared_ptr<TokenMasks> masks, std::span<const int32_t> tokens) : masks_(std::move(masks)) {
  for (const int32_t token : tokens) (void)add(token);
}

bool ConstrainedText::restrict(std::span<float> logits, std::span<const int32_t> ends, bool may_end) {
  const auto mask = masks_->mask(progress_);
  const bool ends_here = mask->may_end && may_end;
  std::vector<std::pair<size_t, float>> end_logits;
  for (const int32_t id : ends) {
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) end_logits.emplace_back(id, logits[static_cast<size_t>(id)]);
  }
  constexpr float kImpossible = -std::numeric_limits<float>::infinity();
  for (size_t first = 0; first < logits.size(); first += 64) {
    const uint64_t word = first / 64 < mask->bits.size() ? mask->bits[first / 64] : 0;
    const size_t end = std::min(logits.size(), first + 64);
    if (~word == 0) continue;
    for (size_t id = first; id < end; ++id) {
      if ((word >> (id - first) & 1) == 0) logits[id] = kImpossible;
    }
  }
  for (const auto& [id, logit] : end_logits) logits[id] = ends_here ? logit : kImpossible;
  return mask->any || (ends_here && !end_logits.empty());
}

}  // namespace penstock::text
