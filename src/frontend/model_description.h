#pragma once
// TorchServe's description of a model, as JSON.
#include <memory>
#include <span>
#include <string>

#include "frontend/served_model.h"

namespace penstock::frontend {

// A list of descriptions, pretty-printed, with a line end. `customized`: each also has "customizedMetadata", what its worker says of itself.
[[nodiscard]] std::string describe_models(std::span<const std::shared_ptr<ServedModel>> models, bool customized);

}  // namespace penstock::frontend
