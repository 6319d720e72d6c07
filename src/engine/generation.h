#pragma once
// One request's way from tokens back to text.
#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/sampler.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace penstock::engine {

// Turns sampled tokens into events: whole characters only, nothing of a stop string, one last event.
//
// Threads: owned by the engine loop.
class Generation {
 public:
  Generation(const text::Tokenizer& tokenizer, const text::GenerationRequest& request, std::span<const int32_t> prompt, std::shared_ptr<EventSink> sink);

  // Takes tokens that the reader has got already. false: the text ended with one of them.
  [[nodiscard]] bool take_up(const std::vector<int32_t>& tokens);
  // The event of the next token. `at_limit`: it is the last one allowed. It has finished = true at a token that ends the text or completes what its
  // constraint allows, a stop string, or the limit. REQUIRES: it is a token.
  [[nodiscard]] GenerationEvent accept(const SampledToken& token, bool at_limit, double step_ms);
  // Of the prompt's next tokens; they go with the next event.
  void tell_prompt(const std::vector<std::vector<RankedToken>>& ranks);
  void set_cached_tokens(int tokens) { usage_.cached_tokens = tokens; }
  // Hands it to the reader. false: the reader is gone.
  [[nodiscard]] bool push(GenerationEvent event) { return sink_->push(std::move(event)); }

  // Ends the generation with an error.
  void fail(const Error& error);

 private:
  [[nodiscard]] bool ends(int32_t token) const { return std::find(end_ids_.begin(), end_ids_.end(), token) != end_ids_.end(); }
  [[nodiscard]] std::optional<FinishReason> show(const SampledToken& token, bool at_limit, std::string& text);
  [[nodiscard]] std::vector<text::TokenLogprob> spelled(const std::vector<RankedToken>& ranks) const;

  const text::Tokenizer tokenizer_;
  const std::vector<int32_t> end_ids_;
  const int min_tokens_;  // before which no stop string counts
  const std::shared_ptr<EventSink> sink_;
  text::StreamDecoder decoder_;
  text::StopStrings stops_;
  std::vector<std::vector<text::TokenLogprob>> prompt_;
  Usage usage_;
  std::vector<double> step_ms_;  // of each token, at most max_tokens
};

// The tokens that end the request's text.
[[nodiscard]] std::vector<int32_t> end_ids(const text::Tokenizer& tokenizer, const text::SamplingParams& sampling);

}  // namespace penstock::engine
