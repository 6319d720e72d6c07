#pragma once
// Tensors and the messages of the Open Inference protocol. Internal to rpc/: the types of protobuf are declared, not included.
#include <vector>

#include "base/error.h"
#include "rpc/infer_call.h"

namespace org::pytorch::serve::grpc::openinference {
class ModelInferRequest;
class ModelInferResponse;
}  // namespace org::pytorch::serve::grpc::openinference

namespace penstock::rpc {

// Errors: kInvalidArgument naming the input: an unknown datatype, contents that do not fit datatype and shape, both kinds of contents, FP16 and
// BF16 outside raw_input_contents.
[[nodiscard]] Result<InferInputs> inputs_of(const org::pytorch::serve::grpc::openinference::ModelInferRequest& request);

// The outputs that the request asks for, raw if its inputs are, or a type has no field of its own. kInvalidArgument: there is no such output.
[[nodiscard]] std::optional<Error> add_outputs(org::pytorch::serve::grpc::openinference::ModelInferResponse& response,
                                               const org::pytorch::serve::grpc::openinference::ModelInferRequest& request,
                                               std::vector<handler::Tensor> outputs);

}  // namespace penstock::rpc
