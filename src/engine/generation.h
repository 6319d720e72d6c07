#pragma once
// One request's way from tokens back to text.
#include <algorithm>
#include <memory>
#include <optional>
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
  Generation(const text::Tokenizer& tokenizer, const text::GenerationRequest& request, int prompt_tokens, std::shared_ptr<EventSink> sink);

  // Takes tokens that the reader has got already. false: the text ended with one of them.
  [[nodiscard]] bool take_up(const std::vector<int32_t>& tokens);
  // The event of the next token. `at_limit`: it is the last one allowed. It has finished = true at a token that ends the text, a stop string, or the limit.
  [[nodiscard]] GenerationEvent accept(const SampledToken& token, bool at_limit, double step_ms);
  // Hands it to the reader. false: the reader is gone.
  [[nodiscard]] bool push(GenerationEvent event) { return sink_->push(std::move(event)); }

  // Ends the generation with an error.
  void fail(const Error& error);

 private:
  [[nodiscard]] bool ends(int32_t token) const { return std::find(end_ids_.begin(), end_ids_.end(), token) != end_ids_.end(); }
  [[nodiscard]] std::optional<FinishReason> show(int32_t token, bool at_limit, std::string& text);
  [[nodiscard]] std::vector<text::TokenLogprob> spelled(const SampledToken& token) const;

  const text::Tokenizer tokenizer_;
  const std::vector<int32_t> end_ids_;
  const int min_tokens_;  // before which no stop string counts
  const std::shared_ptr<EventSink> sink_;
  text::StreamDecoder decoder_;
  text::StopStrings stops_;
  Usage usage_;
  std::vector<double> step_ms_;  // of each token, at most max_tokens
};

// The tokens that end the request's text.
[[nodiscard]] std::vector<int32_t> end_ids(const text::Tokenizer& tokenizer, const text::SamplingParams& sampling);

}  // namespace penstock::engine
