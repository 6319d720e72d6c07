#pragma once
// One request's way from tokens back to text.
#include <memory>
#include <optional>
#include <vector>

#include "engine/engine.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace penstock::engine {

// Turns sampled tokens into events for the sink: whole characters only, nothing of a stop string, one last event.
//
// Threads: owned by the engine loop.
class Generation {
 public:
  Generation(const text::Tokenizer& tokenizer, const text::GenerationRequest& request, int prompt_tokens, std::shared_ptr<EventSink> sink);

  // Takes the next token; `at_limit`: it is the last one allowed. Pushes one event (none for a token that only begins a character).
  // false when the generation is over: at the end token, a stop string, the limit, or when the reader is gone.
  [[nodiscard]] bool accept(int32_t token, bool at_limit, double step_ms);

  // Ends the generation with an error, if it has not ended.
  void fail(const Error& error);

 private:
  [[nodiscard]] bool push(std::string text, int32_t token, double step_ms, std::optional<FinishReason> end);

  const int32_t end_id_;  // -1: no token ends the text
  const std::shared_ptr<EventSink> sink_;
  text::StreamDecoder decoder_;
  text::StopStrings stops_;
  Usage usage_;
  std::vector<double> step_ms_;  // of each token, at most max_tokens
  bool over_ = false;
};

}  // namespace penstock::engine
