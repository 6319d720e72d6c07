#pragma once
// What a PredictionsRequest asks for. Internal to rpc/.
#include <memory>

#include "base/error.h"
#include "frontend/served_model.h"
#include "text/generation_request.h"

namespace org::pytorch::serve::grpc::inference {
class PredictionsRequest;
}

namespace penstock::frontend {
class ModelRegistry;
}

namespace penstock::rpc {

struct PredictionsCall {
  std::shared_ptr<frontend::ServedModel> model;  // held while its job may be touched
  text::GenerationRequest request;
};

// Errors: those of ModelRegistry::find() and parse_generation_request(); kInvalidArgument without the input key "data", or with another.
[[nodiscard]] Result<PredictionsCall> parse_predictions_request(const org::pytorch::serve::grpc::inference::PredictionsRequest& message,
                                                                const frontend::ModelRegistry& registry);

}  // namespace penstock::rpc
