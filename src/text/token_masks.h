#pragma once
// Which tokens may come next in a text that a constraint bounds.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/mutex.h"
#include "text/grammar_states.h"
#include "text/token_trie.h"

namespace penstock::text {

// The masks of one grammar over one vocabulary, each made when its place in the grammar is first met (one walk through the trie), and kept.
//
// Threads: all methods may be called from any thread; one walks at a time.
class TokenMasks {
 public:
  TokenMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie);

  struct Mask {
    std::vector<uint64_t> bits;  // by id: it may come next
    bool any = false;            // of them
    bool may_end = false;        // the text may end here

    [[nodiscard]] bool allows(size_t id) const { return id / 64 < bits.size() && (bits[id / 64] >> (id % 64) & 1) != 0; }
  };

  // A text on its way. Empty: its beginning.
  struct Progress {
    std::string text = {};
    GrammarStates::Place place = GrammarStates::kNowhere;
    uint64_t epoch = 0;  // of the places; that of another epoch is found again from the text
  };
  // Throws Error kResourceExhausted when it takes too much (GrammarStates).
  [[nodiscard]] std::shared_ptr<const Mask> mask(Progress& progress) EXCLUDES(mutex_);
  // The text goes on with a token. Throws as mask().
  enum class Next { kGoesOn, kComplete, kNotAllowed };  // kComplete: it must end here
  [[nodiscard]] Next add(Progress& progress, int32_t token) EXCLUDES(mutex_);

  // What walks have found out so far, about; and without it they find it out again.
  [[nodiscard]] size_t bytes() const EXCLUDES(mutex_);
  void forget() EXCLUDES(mutex_);

 private:
  static constexpr size_t kKeptPlaces = 16 << 20;  // bytes; more are forgotten before the next walk
  static constexpr size_t kKeptMasks = 16 << 20;   // bytes

  [[nodiscard]] GrammarStates::Place place_of(Progress& progress) REQUIRES(mutex_);
  [[nodiscard]] size_t mask_bytes() const { return sizeof(Mask) + static_cast<size_t>(trie_->vocab_size()) / 8 + 64; }
  void forget_all() REQUIRES(mutex_);
  [[nodiscard]] std::shared_ptr<const Mask> make(GrammarStates::Place place) REQUIRES(mutex_);

  const std::shared_ptr<const TokenTrie> trie_;
  mutable Mutex mutex_;
  GrammarStates states_ GUARDED_BY(mutex_);
  uint64_t epoch_ GUARDED_BY(mutex_) = 1;
  std::unordered_map<GrammarStates::Place, std::shared_ptr<const Mask>> masks_ GUARDED_BY(mutex_);
};

// One text, token by token.
//
// Threads: one. Lifetime: shares the masks.
class ConstrainedText {
 public:
  // `tokens`: those that the text has already.
  ConstrainedText(std::shared_ptr<TokenMasks> masks, std::span<const int32_t> tokens);

  // Makes impossible, in place, what may not come next: -infinity. Tokens of `ends` end the text: possible where it may end, if `may_end`.
  // false: nothing is possible.
  [[nodiscard]] bool restrict(std::span<float> logits, std::span<const int32_t> ends, bool may_end);
  [[nodiscard]] TokenMasks::Next add(int32_t token) { return masks_->add(progress_, token); }

 private:
  std::shared_ptr<TokenMasks> masks_;
  TokenMasks::Progress progress_;
};

}  // namespace penstock::text
