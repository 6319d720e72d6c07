#include "engine/token_constraints.h"

#include <algorithm>

#include "base/log.h"
#include "text/grammar.h"

namespace penstock::engine {

std::shared_ptr<text::TokenMasks> TokenConstraints::masks(const SamplingChoice& choice) {
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const auto& entry) { return entry.first == choice.constraint; });
  if (found != kept_.end()) {
    std::rotate(kept_.begin(), found, std::next(found));
    return kept_.front().second;
  }
  if (!trie_) throw error(Code::kInternal, "this stage has no tokenizer");
  trim();
  const auto grammar = choice.grammar ? choice.grammar : std::make_shared<const text::Grammar>(text::constraint_grammar(choice.constraint).value());
  kept_.emplace_front(choice.constraint, std::make_shared<text::TokenMasks>(grammar, trie_));
  if (kept_.size() > kKept) kept_.pop_back();
  return kept_.front().second;
}

// Masks that no text uses keep little.
void TokenConstraints::trim() {
  size_t bytes = 0;
  for (const auto& [constraint, masks] : kept_) bytes += masks->bytes();
  if (bytes <= kKeptBytes) return;
  for (const auto& [constraint, masks] : kept_) {
    if (masks.use_count() == 1) masks->forget();
  }
}

std::optional<text::ConstrainedText> TokenConstraints::begin(const SamplingChoice& choice, std::span<const int32_t> completion) {
  try {
    return text::ConstrainedText(masks(choice), completion);
  } catch (const Error& e) {
    spdlog::warn("a constrained text cannot begin: {}", e.message());
    return std::nullopt;
  }
}

SampledToken next_constrained_token(std::span<float> logits, const SamplingChoice& choice, const TokenHistory& history, int64_t position,
                                    text::ConstrainedText& text) {
  try {
    if (!text.restrict(logits, choice.ends, history.completion_tokens() >= choice.min_tokens)) return {kNoFittingToken};
    SampledToken token = next_token(logits, choice, history, position);
    if (token.id == kNotNumbers || std::find(choice.ends.begin(), choice.ends.end(), token.id) != choice.ends.end()) return token;
    switch (text.add(token.id)) {
      case text::TokenMasks::Next::kGoesOn: return token;
      case text::TokenMasks::Next::kComplete: token.completes = true; return token;
      case text::TokenMasks::Next::kNotAllowed: break;
    }
  } catch (const Error& e) {
    spdlog::warn("a constrained text was given up: {}", e.message());
  }
  return {kNoFittingToken};
}

}  // namespace penstock::engine
