#pragma once
// Constraints of texts on the last stage, where tokens are chosen.
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "engine/sampler.h"
#include "text/token_masks.h"
#include "text/tokenizer.h"

namespace penstock::engine {

// The constraints of a stage's sequences. Equal ones share their masks, and those used last are kept for later requests,
// without what takes much memory.
//
// Threads: one.
class TokenConstraints {
 public:
  // Takes 0.1 s for 131,072 tokens. nullptr: there will be no constraints.
  explicit TokenConstraints(const text::Tokenizer* tokenizer) : trie_(tokenizer ? std::make_shared<const text::TokenTrie>(*tokenizer) : nullptr) {}

  // A text that has these tokens already. nullopt, and a line in the log: the stage has no tokenizer, or the constraint is none that
  // constraint_grammar() takes, or it takes too much.
  [[nodiscard]] std::optional<text::ConstrainedText> begin(const SamplingChoice& choice, std::span<const int32_t> completion);

 private:
  static constexpr size_t kKept = 16;
  static constexpr size_t kKeptBytes = 128 << 20;

  [[nodiscard]] std::shared_ptr<text::TokenMasks> masks(const SamplingChoice& choice);
  void trim();

  const std::shared_ptr<const text::TokenTrie> trie_;
  std::deque<std::pair<text::TextConstraint, std::shared_ptr<text::TokenMasks>>> kept_;  // used last first
};

// As next_token(), among what the text may go on with. kNoFittingToken where that is nothing, or where finding it takes too much.
[[nodiscard]] SampledToken next_constrained_token(std::span<float> logits, const SamplingChoice& choice, const TokenHistory& history, int64_t position,
                                                  text::ConstrainedText& text);

}  // namespace penstock::engine
