#include "engine/generation.h"

#include <algorithm>

namespace penstock::engine {

Generation::Generation(const text::Tokenizer& tokenizer, const text::GenerationRequest& request, int prompt_tokens, std::shared_ptr<EventSink> sink)
    : end_id_(request.sampling.ignore_eos ? -1 : tokenizer.end_id()),
      sink_(std::move(sink)),
      decoder_(tokenizer, text::SpecialTokens::kSkip, /*at_start=*/false),
      stops_(request.sampling.stop) {
  usage_.prompt_tokens = prompt_tokens;
}

bool Generation::accept(int32_t token, bool at_limit, double step_ms) {
  ++usage_.completion_tokens;
  step_ms_.push_back(step_ms);
  const bool ended = token == end_id_;
  std::string shown = ended ? std::string() : stops_.feed(decoder_.feed(token));
  if (stops_.matched()) return push(std::move(shown), token, step_ms, FinishReason::kStop);
  if (!ended && !at_limit) return push(std::move(shown), token, step_ms, std::nullopt);
  shown += stops_.feed(decoder_.flush());
  if (!stops_.matched()) shown += stops_.flush();
  return push(std::move(shown), token, step_ms, ended || stops_.matched() ? FinishReason::kStop : FinishReason::kLength);
}

bool Generation::push(std::string text, int32_t token, double step_ms, std::optional<FinishReason> end) {
  GenerationEvent event;
  event.text = std::move(text);
  event.token_id = token;
  event.step_ms = step_ms;
  event.finished = end.has_value();
  if (end) {
    event.reason = *end;
    const auto middle = step_ms_.begin() + static_cast<ptrdiff_t>(step_ms_.size() / 2);
    std::nth_element(step_ms_.begin(), middle, step_ms_.end());
    usage_.median_step_ms = *middle;
  }
  event.usage = usage_;
  const bool reader_there = sink_->push(std::move(event));
  over_ = end.has_value() || !reader_there;
  return !over_;
}

void Generation::fail(const Error& error) {
  if (over_) return;
  over_ = true;
  GenerationEvent event;
  event.finished = true;
  event.reason = FinishReason::kError;
  event.error = error;
  event.usage = usage_;
  (void)sink_->push(std::move(event));  // nobody is left to be told when the reader is gone
}

}  // namespace penstock::engine
