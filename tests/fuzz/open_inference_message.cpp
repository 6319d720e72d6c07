#include "fuzz.h"
#include "openinference/open_inference.pb.h"
#include "rpc/infer_contents.h"

// A ModelInferRequest, answered with its own tensors.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  namespace pb = org::pytorch::serve::grpc::openinference;
  return fuzz::accept_errors([&] {
    pb::ModelInferRequest request;
    if (!request.ParseFromArray(data, static_cast<int>(size))) return;
    auto inputs = rpc::inputs_of(request);
    if (!inputs) return;
    pb::ModelInferResponse response;
    if (rpc::add_outputs(response, request, std::move(inputs->tensors))) return;
    (void)response.SerializeAsString();
  });
}
