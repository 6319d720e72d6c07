#include "rpc/generate_messages.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "penstock/generate.pb.h"
#include "text/generation_check.h"
#include "text/grammar.h"

namespace penstock::rpc {
namespace {

using text::TextConstraint;

TextConstraint constraint_of(const v1::Sampling& from) {
  switch (from.constraint_case()) {
    case v1::Sampling::kJsonObject: return {from.json_object() ? TextConstraint::Kind::kJsonObject : TextConstraint::Kind::kNone};
    case v1::Sampling::kJsonSchema: return {TextConstraint::Kind::kJsonSchema, from.json_schema()};
    case v1::Sampling::kRegex: return {TextConstraint::Kind::kRegex, from.regex()};
    case v1::Sampling::kChoice: {
      const std::vector<std::string> texts(from.choice().texts().begin(), from.choice().texts().end());
      return {TextConstraint::Kind::kChoice, nlohmann::json(texts).dump()};
    }
    case v1::Sampling::CONSTRAINT_NOT_SET: break;
  }
  return {};
}

std::string_view constraint_field(TextConstraint::Kind kind) {
  switch (kind) {
    case TextConstraint::Kind::kJsonObject: return "json_object";
    case TextConstraint::Kind::kJsonSchema: return "json_schema";
    case TextConstraint::Kind::kRegex: return "regex";
    case TextConstraint::Kind::kChoice: return "choice";
    case TextConstraint::Kind::kNone: break;
  }
  return "constraint";
}

text::SamplingParams sampling_of(const v1::Sampling& from) {
  text::SamplingParams to;
  if (from.has_max_tokens()) to.max_tokens = from.max_tokens();
  if (from.has_min_tokens()) to.min_tokens = from.min_tokens();
  if (from.has_temperature()) to.temperature = from.temperature();
  if (from.has_top_k()) to.top_k = from.top_k();
  if (from.has_top_p()) to.top_p = from.top_p();
  if (from.has_min_p()) to.min_p = from.min_p();
  if (from.has_repetition_penalty()) to.repetition_penalty = from.repetition_penalty();
  if (from.has_presence_penalty()) to.presence_penalty = from.presence_penalty();
  if (from.has_frequency_penalty()) to.frequency_penalty = from.frequency_penalty();
  to.logit_bias.assign(from.logit_bias().begin(), from.logit_bias().end());
  if (from.has_seed()) to.seed = from.seed();
  to.stop.assign(from.stop().begin(), from.stop().end());
  to.stop_token_ids.assign(from.stop_token_ids().begin(), from.stop_token_ids().end());
  to.ignore_eos = from.ignore_eos();
  if (from.has_logprobs()) to.logprobs = from.logprobs();
  if (from.has_prompt_logprobs()) to.prompt_logprobs = from.prompt_logprobs();
  to.constraint = constraint_of(from);
  return to;
}

// `logprobs`: of the token itself, then of the likeliest ones; may be empty.
void fill(v1::Token& token, const std::vector<text::TokenLogprob>& logprobs) {
  if (logprobs.empty()) return;
  if (!std::isnan(logprobs[0].logprob)) token.set_logprob(logprobs[0].logprob);
  token.set_bytes(logprobs[0].bytes);
  for (size_t i = 1; i < logprobs.size(); ++i) {
    v1::TokenLogprob* top = token.add_top();
    top->set_id(logprobs[i].id);
    top->set_logprob(logprobs[i].logprob);
    top->set_bytes(logprobs[i].bytes);
  }
}

}  // namespace

Result<text::GenerationRequest> from_proto(const v1::GenerateRequest& message) {
  text::GenerationRequest request;
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText: request.prompt = message.text(); break;
    case v1::GenerateRequest::kTokenIds:
      request.prompt_ids.assign(message.token_ids().ids().begin(), message.token_ids().ids().end());
      if (request.prompt_ids.empty()) return Error(Code::kInvalidArgument, "field 'token_ids': expected 1 or more, found none");
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET: return Error(Code::kInvalidArgument, "field 'text': expected it or 'token_ids', found neither");
  }
  request.is_chat = message.is_chat();
  request.sampling = sampling_of(message.sampling());
  request.cache_salt = message.cache_salt();
  if (auto bad = text::check_generation_request(request)) return *bad;
  const TextConstraint& constraint = request.sampling.constraint;
  if (!constraint) return request;
  if (const auto grammar = text::constraint_grammar(constraint); !grammar) {
    return error(Code::kInvalidArgument, "field '{}': {}", constraint_field(constraint.kind), grammar.error().message());
  }
  return request;
}

std::optional<v1::GenerateResponse> to_response(const frontend::WorkerEvent& event) {
  if (event.bytes.empty() && event.token_id < 0 && !event.finished) return std::nullopt;
  v1::GenerateResponse message;
  message.set_text(event.bytes);
  if (event.token_id >= 0) {
    v1::Token* token = message.add_tokens();
    token->set_id(event.token_id);
    fill(*token, event.logprobs);
  }
  for (const auto& logprobs : event.prompt_logprobs) {
    v1::Token* token = message.add_prompt();
    token->set_id(logprobs[0].id);
    fill(*token, logprobs);
  }
  if (event.finished) {
    v1::Finish* finish = message.mutable_finish();
    finish->set_reason(event.finished->reason == "length" ? v1::FINISH_REASON_LENGTH : v1::FINISH_REASON_STOP);
    finish->mutable_usage()->set_prompt_tokens(event.finished->prompt_tokens);
    finish->mutable_usage()->set_completion_tokens(event.finished->completion_tokens);
    finish->mutable_usage()->set_cached_tokens(event.finished->cached_tokens);
    finish->set_median_step_ms(event.finished->median_step_ms);
  }
  return message;
}

}  // namespace penstock::rpc
