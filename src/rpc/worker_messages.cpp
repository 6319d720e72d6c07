#include "rpc/worker_call_reactor.h"

namespace penstock::rpc {

namespace pb = penstock::worker::v1;

text::GenerationRequest Generation::from_proto(const pb::GenerateRequest& request) {
  text::GenerationRequest result;
  result.prompt = request.prompt();
  const pb::Sampling& sampling = request.sampling();
  result.sampling.max_tokens = sampling.max_tokens();
  result.sampling.temperature = sampling.temperature();
  result.sampling.top_k = sampling.top_k();
  result.sampling.top_p = sampling.top_p();
  if (sampling.has_seed()) result.sampling.seed = sampling.seed();
  result.sampling.stop.assign(sampling.stop().begin(), sampling.stop().end());
  return result;
}

pb::GenerateEvent Generation::to_proto(engine::GenerationEvent& event) {
  pb::GenerateEvent message;
  message.set_text(std::move(event.text));
  message.set_token_id(event.token_id);
  message.set_step_ms(event.step_ms);
  if (event.finished) {
    pb::Finish* finish = message.mutable_finish();
    finish->set_reason(event.reason == engine::FinishReason::kLength ? "length" : "stop");
    finish->set_prompt_tokens(event.usage.prompt_tokens);
    finish->set_completion_tokens(event.usage.completion_tokens);
    finish->set_median_step_ms(event.usage.median_step_ms);
  }
  return message;
}

handler::Request Prediction::from_proto(const pb::PredictRequest& request) {
  handler::Request result;
  result.id = request.id();
  for (const pb::Header& header : request.headers()) result.headers.emplace_back(header.name(), header.value());
  for (const pb::Part& part : request.parts()) result.parts.push_back({part.name(), part.content_type(), part.data()});
  return result;
}

pb::PredictEvent Prediction::to_proto(handler::AnswerEvent& event) {
  pb::PredictEvent message;
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
  return message;
}

}  // namespace penstock::rpc
