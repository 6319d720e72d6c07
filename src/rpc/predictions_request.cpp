#include "rpc/predictions_request.h"

#include <utility>

#include "frontend/model_registry.h"
#include "torchserve/inference.pb.h"

namespace penstock::rpc {

Result<PredictionsCall> parse_predictions_request(const org::pytorch::serve::grpc::inference::PredictionsRequest& message,
                                                  const frontend::ModelRegistry& registry) {
  auto model = registry.find(message.model_name(), message.model_version());
  if (!model) return model.error();
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
  return PredictionsCall{*model, std::move(*request)};
}

}  // namespace penstock::rpc
