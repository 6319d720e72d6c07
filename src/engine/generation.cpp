#include "engine/generation.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace penstock::engine {

Generation::Generation(const text::Tokenizer& tokenizer, const text::GenerationRequest& request, std::span<const int32_t> prompt, std::shared_ptr<EventSink> sink)
    : tokenizer_(tokenizer),
      end_ids_(end_ids(tokenizer, request.sampling)),
      min_tokens_(request.sampling.min_tokens),
      sink_(std::move(sink)),
      decoder_(tokenizer, request.sampling.skip_special_tokens ? text::SpecialTokens::kSkip : text::SpecialTokens::kAsText, /*at_start=*/false),
      stops_(request.sampling.stop) {
  usage_.prompt_tokens = static_cast<int>(prompt.size());
  if (request.sampling.prompt_logprobs && request.generated_ids.empty()) prompt_ = {spelled({{prompt.front(), std::numeric_limits<float>::quiet_NaN()}})};
}

bool Generation::take_up(const std::vector<int32_t>& tokens) {
  for (const int32_t token : tokens) {
    ++usage_.completion_tokens;
    std::string sent;
    if (show({token}, /*at_limit=*/false, sent)) return false;
  }
  return true;
}

GenerationEvent Generation::accept(const SampledToken& token, bool at_limit, double step_ms) {
  ++usage_.completion_tokens;
  step_ms_.push_back(step_ms);
  GenerationEvent event;
  const auto end = show(token, at_limit, event.text);
  event.token_id = token.id;
  if (!ends(token.id)) event.logprobs = spelled(token.logprobs);  // the end is no part of the text
  event.prompt_logprobs = std::exchange(prompt_, {});
  event.step_ms = step_ms;
  event.finished = end.has_value();
  if (end) {
    event.reason = *end;
    const auto middle = step_ms_.begin() + static_cast<ptrdiff_t>(step_ms_.size() / 2);
    std::nth_element(step_ms_.begin(), middle, step_ms_.end());
    usage_.median_step_ms = *middle;
  }
  event.usage = usage_;
  return event;
}

// The text that becomes certain with this token, and how the generation ends with it, if it does.
std::optional<FinishReason> Generation::show(const SampledToken& token, bool at_limit, std::string& text) {
  const bool ended = ends(token.id);
  const bool stops_count = usage_.completion_tokens > min_tokens_;
  if (!ended) {
    text = decoder_.feed(token.id);
    if (stops_count) text = stops_.feed(text);
    if (stops_.matched()) return FinishReason::kStop;
    if (!at_limit && !token.completes) return std::nullopt;
  }
  std::string rest = decoder_.flush();
  text += stops_count ? stops_.feed(rest) : rest;
  if (!stops_.matched()) text += stops_.flush();
  return ended || stops_.matched() || token.completes ? FinishReason::kStop : FinishReason::kLength;
}

void Generation::tell_prompt(const std::vector<std::vector<RankedToken>>& ranks) {
  for (const auto& of_token : ranks) prompt_.push_back(spelled(of_token));
}

std::vector<text::TokenLogprob> Generation::spelled(const std::vector<RankedToken>& ranks) const {
  std::vector<text::TokenLogprob> result;
  for (const RankedToken& ranked : ranks) {
    result.push_back({ranked.id, ranked.logprob, std::string(tokenizer_.bytes_of(ranked.id, text::SpecialTokens::kAsText))});
  }
  return result;
}

void Generation::fail(const Error& error) {
  GenerationEvent event;
  event.finished = true;
  event.reason = FinishReason::kError;
  event.error = error;
  event.usage = usage_;
  (void)sink_->push(std::move(event));  // nobody is left to be told when the reader is gone
}

std::vector<int32_t> end_ids(const text::Tokenizer& tokenizer, const text::SamplingParams& sampling) {
  std::vector<int32_t> ids = sampling.stop_token_ids;
  if (!sampling.ignore_eos) ids.insert(ids.end(), tokenizer.end_ids().begin(), tokenizer.end_ids().end());
  return ids;
}

}  // namespace penstock::engine
