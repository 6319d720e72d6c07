#include "rpc/predictions_request.h"

#include <utility>

#include "base/uuid.h"
#include "frontend/model_registry.h"
#include "rpc/sequence_mark.h"
#include "torchserve/inference.pb.h"

namespace penstock::rpc {
namespace {

using org::pytorch::serve::grpc::inference::PredictionsRequest;

Result<frontend::Payload> text_payload(const PredictionsRequest& message) {
  const auto data = message.input().find("data");
  if (data == message.input().end()) {
    return Error(Code::kInvalidArgument, "input: the key 'data' is missing; expected a UTF-8 prompt or a JSON object as its value");
  }
  for (const auto& [key, value] : message.input()) {
    if (key != "data") {
      return error(Code::kInvalidArgument, "input: unknown key '{}'; the only one is 'data' (sampling options go into its JSON object)",
                   key.substr(0, 200));
    }
  }
  auto request = text::parse_generation_request(data->second);
  if (!request) return request.error();
  return frontend::Payload(std::move(*request));
}

Result<frontend::Payload> bytes_payload(const PredictionsRequest& message) {
  handler::Request request{make_uuid(), {}, {}};
  for (const auto& [name, value] : message.input()) request.parts.push_back({name, "", value});
  if (auto bad = check_request(request)) return *bad;
  return frontend::Payload(std::move(request));
}

}  // namespace

Result<PredictionsCall> parse_predictions_request(const PredictionsRequest& message, const frontend::ModelRegistry& registry) {
  auto model = registry.find(message.model_name(), message.model_version());
  if (!model) return model.error();
  const bool is_text = (*model)->spec().handler_kind == frontend::HandlerKind::kText;
  auto payload = is_text ? text_payload(message) : bytes_payload(message);
  if (!payload) return payload.error();
  auto sequence = mark_sequence(**model, message.has_sequence_id() ? std::optional(message.sequence_id()) : std::nullopt, /*last=*/false);
  if (!sequence) return sequence.error();
  if (*sequence) tell_sequence(**model, **sequence, *payload);
  return PredictionsCall{*model, std::move(*payload), std::move(*sequence)};
}

}  // namespace penstock::rpc
