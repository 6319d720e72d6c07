#pragma once
// One inference of the Open Inference protocol, over gRPC or HTTP: tensors in, tensors out, whatever the model's handler is. Internal to rpc/.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "frontend/served_model.h"
#include "handler/tensor.h"
#include "rpc/failed_answer.h"

namespace penstock::rpc {

struct InferInputs {
  std::string id;                         // the client's; may be empty
  std::vector<handler::Tensor> tensors;   // each checked
};

// What the model's handler is given: `torchscript` the protocol's JSON with the tensors' bytes after it; libraries and Python the JSON that
// TorchServe gives them, with BYTES in base64; `llm` the one text of a BYTES tensor of one item (a prompt, or a JSON object).
// Errors: kInvalidArgument.
[[nodiscard]] Result<frontend::Payload> infer_payload(const frontend::ServedModel& model, const InferInputs& inputs);

// Gathers a job's answer, of at most `limit` bytes (else `too_long` is its outcome), and hands over its tensors (infer_message.h); a
// generation's text is one BYTES tensor, "text".
//
// Threads: as RequestObserver; `done` is called once.
[[nodiscard]] std::shared_ptr<frontend::RequestObserver> gather_tensors(size_t limit, Error too_long,
                                                                        std::function<void(Result<std::vector<handler::Tensor>>)> done);

// "pytorch_torchscript", as the protocol's metadata name what runs a model.
[[nodiscard]] const char* platform_of(const frontend::ServedModel& model);

}  // namespace penstock::rpc
