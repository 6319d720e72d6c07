#include "rpc/worker_messages.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <utility>

#include "rpc/status_map.h"
#include "worker.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::worker::v1;

void fill(pb::GenerateRequest& message, const text::GenerationRequest& request) {
  message.set_prompt(request.prompt);
  message.mutable_prompt_ids()->Assign(request.prompt_ids.begin(), request.prompt_ids.end());
  message.set_is_chat(request.is_chat);
  message.set_cache_salt(request.cache_salt);
  message.mutable_generated_ids()->Assign(request.generated_ids.begin(), request.generated_ids.end());
  pb::Sampling& sampling = *message.mutable_sampling();
  sampling.set_max_tokens(request.sampling.max_tokens);
  sampling.set_temperature(request.sampling.temperature);
  sampling.set_top_k(request.sampling.top_k);
  sampling.set_top_p(request.sampling.top_p);
  if (request.sampling.seed) sampling.set_seed(*request.sampling.seed);
  for (const std::string& stop : request.sampling.stop) sampling.add_stop(stop);
  sampling.set_ignore_eos(request.sampling.ignore_eos);
  sampling.set_show_special_tokens(!request.sampling.skip_special_tokens);
  sampling.set_min_tokens(request.sampling.min_tokens);
  sampling.set_min_p(request.sampling.min_p);
  sampling.set_repetition_penalty(request.sampling.repetition_penalty);
  sampling.set_presence_penalty(request.sampling.presence_penalty);
  sampling.set_frequency_penalty(request.sampling.frequency_penalty);
  for (const auto& [id, bias] : request.sampling.logit_bias) (*sampling.mutable_logit_bias())[id] = bias;
  sampling.mutable_stop_token_ids()->Assign(request.sampling.stop_token_ids.begin(), request.sampling.stop_token_ids.end());
  if (request.sampling.logprobs) sampling.set_logprobs(*request.sampling.logprobs);
  if (request.sampling.prompt_logprobs) sampling.set_prompt_logprobs(*request.sampling.prompt_logprobs);
  if (const text::TextConstraint& constraint = request.sampling.constraint) {
    sampling.mutable_constraint()->set_kind(static_cast<int>(constraint.kind));
    sampling.mutable_constraint()->set_source(constraint.source);
  }
}

void fill(pb::PredictRequest& message, const handler::Request& request) {
  message.set_id(request.id);
  for (const auto& [name, value] : request.headers) {
    pb::Header* header = message.add_headers();
    header->set_name(name);
    header->set_value(value);
  }
  for (const handler::Part& from : request.parts) {
    pb::Part* part = message.add_parts();
    part->set_name(from.name);
    part->set_content_type(from.content_type);
    part->set_data(from.bytes);
  }
}

using Tokens = google::protobuf::RepeatedPtrField<pb::TokenLogprob>;

std::vector<text::TokenLogprob> taken(Tokens& tokens) {
  std::vector<text::TokenLogprob> result;
  for (pb::TokenLogprob& token : tokens) result.push_back({token.id(), token.logprob(), std::move(*token.mutable_bytes())});
  return result;
}

void put(std::vector<text::TokenLogprob>& tokens, Tokens& message) {
  for (text::TokenLogprob& from : tokens) {
    pb::TokenLogprob* token = message.Add();
    token->set_id(from.id);
    token->set_logprob(from.logprob);
    token->set_bytes(std::move(from.bytes));
  }
}

frontend::WorkerEvent generated(pb::GenerateEvent& message) {
  frontend::WorkerEvent event;
  event.bytes = std::move(*message.mutable_text());
  event.token_id = message.token_id();
  event.step_ms = message.step_ms();
  event.logprobs = taken(*message.mutable_logprobs());
  for (pb::TokenChoices& choices : *message.mutable_prompt()) event.prompt_logprobs.push_back(taken(*choices.mutable_tokens()));
  if (message.has_finish()) {
    event.finished = frontend::FinishedInfo{message.finish().reason(), message.finish().prompt_tokens(),
                                            message.finish().completion_tokens(), message.finish().median_step_ms(), message.finish().cached_tokens()};
  }
  return event;
}

frontend::WorkerEvent answered(pb::PredictEvent& message) {
  frontend::WorkerEvent event;
  event.bytes = std::move(*message.mutable_data());
  event.last = message.last();
  if (message.has_head()) {
    auto& head = event.head.emplace(handler::AnswerHead{message.head().status(), message.head().content_type(), {}});
    for (const pb::Header& header : message.head().headers()) head.headers.emplace_back(header.name(), header.value());
  }
  return event;
}

}  // namespace

pb::Command to_command(const frontend::Payload& payload) {
  pb::Command command;
  if (const auto* text = std::get_if<text::GenerationRequest>(&payload)) fill(*command.mutable_generate(), *text);
  else fill(*command.mutable_predict(), std::get<handler::Request>(payload));
  return command;
}

frontend::WorkerEvent to_worker_event(pb::Event& event) {
  return event.has_generated() ? generated(*event.mutable_generated()) : answered(*event.mutable_answered());
}

frontend::EngineFigures from_proto(const pb::EngineStats& stats) {
  return {stats.running(), stats.pages_held(), stats.pages(), stats.prefix_queries(), stats.prefix_hits(), stats.preemptions()};
}

void fill(pb::EngineStats& message, const engine::EngineStats& stats) {
  message.set_running(stats.running);
  message.set_waiting(stats.waiting);
  message.set_pages_held(stats.pages_held);
  message.set_pages(stats.pages);
  message.set_prefix_queries(stats.prefix_queries);
  message.set_prefix_hits(stats.prefix_hits);
  message.set_preemptions(stats.preemptions);
}

Error to_error(const pb::End& end) {
  const bool known = end.code() > 0 && end.code() <= grpc::StatusCode::UNAUTHENTICATED;  // others are no value of the enumeration
  return to_error(grpc::Status(known ? static_cast<grpc::StatusCode>(end.code()) : grpc::StatusCode::INTERNAL, end.message()));
}

text::GenerationRequest from_proto(const pb::GenerateRequest& request) {
  text::GenerationRequest result;
  result.prompt = request.prompt();
  result.prompt_ids.assign(request.prompt_ids().begin(), request.prompt_ids().end());
  result.is_chat = request.is_chat();
  const pb::Sampling& sampling = request.sampling();
  result.sampling.max_tokens = sampling.max_tokens();
  result.sampling.temperature = sampling.temperature();
  result.sampling.top_k = sampling.top_k();
  result.sampling.top_p = sampling.top_p();
  if (sampling.has_seed()) result.sampling.seed = sampling.seed();
  result.sampling.stop.assign(sampling.stop().begin(), sampling.stop().end());
  result.sampling.ignore_eos = sampling.ignore_eos();
  result.sampling.skip_special_tokens = !sampling.show_special_tokens();
  result.sampling.min_tokens = sampling.min_tokens();
  result.sampling.min_p = sampling.min_p();
  result.sampling.repetition_penalty = sampling.repetition_penalty();
  result.sampling.presence_penalty = sampling.presence_penalty();
  result.sampling.frequency_penalty = sampling.frequency_penalty();
  result.sampling.logit_bias.assign(sampling.logit_bias().begin(), sampling.logit_bias().end());
  result.sampling.stop_token_ids.assign(sampling.stop_token_ids().begin(), sampling.stop_token_ids().end());
  if (sampling.has_logprobs()) result.sampling.logprobs = sampling.logprobs();
  if (sampling.has_prompt_logprobs()) result.sampling.prompt_logprobs = sampling.prompt_logprobs();
  if (sampling.has_constraint()) {
    result.sampling.constraint = {static_cast<text::TextConstraint::Kind>(sampling.constraint().kind()), sampling.constraint().source()};
  }
  result.cache_salt = request.cache_salt();
  result.generated_ids.assign(request.generated_ids().begin(), request.generated_ids().end());
  return result;
}

handler::Request from_proto(const pb::PredictRequest& request) {
  handler::Request result;
  result.id = request.id();
  for (const pb::Header& header : request.headers()) result.headers.emplace_back(header.name(), header.value());
  for (const pb::Part& part : request.parts()) result.parts.push_back({part.name(), part.content_type(), part.data()});
  return result;
}

pb::Event to_proto(engine::GenerationEvent& event) {
  pb::Event result;
  pb::GenerateEvent& message = *result.mutable_generated();
  message.set_text(std::move(event.text));
  message.set_token_id(event.token_id);
  message.set_step_ms(event.step_ms);
  put(event.logprobs, *message.mutable_logprobs());
  for (auto& choices : event.prompt_logprobs) put(choices, *message.add_prompt()->mutable_tokens());
  if (event.finished) {
    pb::Finish* finish = message.mutable_finish();
    finish->set_reason(event.reason == engine::FinishReason::kLength ? "length" : "stop");
    finish->set_prompt_tokens(event.usage.prompt_tokens);
    finish->set_completion_tokens(event.usage.completion_tokens);
    finish->set_median_step_ms(event.usage.median_step_ms);
    finish->set_cached_tokens(event.usage.cached_tokens);
  }
  return result;
}

pb::Event to_proto(handler::AnswerEvent& event) {
  pb::Event result;
  pb::PredictEvent& message = *result.mutable_answered();
  if (event.head) {
    pb::AnswerHead* head = message.mutable_head();
    head->set_status(event.head->status);
    head->set_content_type(event.head->content_type);
    for (const auto& [name, value] : event.head->headers) {
      pb::Header* header = head->add_headers();
      header->set_name(name);
      header->set_value(value);
    }
  }
  message.set_data(std::move(event.bytes));
  message.set_last(event.last);
  return result;
}

pb::Event end_event(const Error& failure) {
  pb::Event result;
  const grpc::Status status = to_status(failure);
  result.mutable_end()->set_code(status.error_code());
  result.mutable_end()->set_message(status.error_message());
  return result;
}

}  // namespace penstock::rpc
