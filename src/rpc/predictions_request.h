#pragma once
// What a PredictionsRequest asks for. Internal to rpc/.
#include <memory>
#include <optional>

#include "base/error.h"
#include "frontend/served_model.h"

namespace org::pytorch::serve::grpc::inference {
class PredictionsRequest;
}

namespace penstock::frontend {
class ModelRegistry;
}

namespace penstock::rpc {

struct PredictionsCall {
  std::shared_ptr<frontend::ServedModel> model;  // held while its job may be touched
  frontend::Payload payload;
  std::optional<frontend::JobOptions::Sequence> sequence;
};

// For a model of text generation, the one input key is "data"; for others, each becomes a part of that name.
// A sequence_id is the request's sequence (sequence_mark.h).
// Errors: those of ModelRegistry::find(), mark_sequence(), parse_generation_request() and check_request(); kInvalidArgument for other keys than "data".
[[nodiscard]] Result<PredictionsCall> parse_predictions_request(const org::pytorch::serve::grpc::inference::PredictionsRequest& message,
                                                                const frontend::ModelRegistry& registry);

}  // namespace penstock::rpc
