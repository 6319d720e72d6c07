#pragma once
// The forms in which a request may carry tensors, and an answer in the form of its request.
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "handler/handler.h"
#include "handler/tensor.h"

namespace penstock::handler {

enum class TensorForm {
  kLists,      // [[1, 2], [3, 4]] -> the same
  kInstances,  // {"instances": [...]} -> {"predictions": [...]}; instances that are objects give one input for each key  (KServe v1)
  kInfer,      // {"id", "inputs": [{"name", "datatype", "shape", "data"}]} -> {"model_name", "id", "outputs": [...]}      (KServe v2)
  kBinary,     // the same, with tensors' bytes after the JSON: the extension "binary tensor data" of the protocol -> the same
  kRaw,        // bytes -> bytes of the first output
};

struct TensorRequest {
  TensorForm form = TensorForm::kLists;
  std::string id;               // the client's, in kInfer and kBinary
  std::vector<Tensor> inputs;   // at least one; names may be empty where the form has none
  bool ordered = true;          // false: the inputs come from a map
};

// How bytes without a description are read: whole rows of this shape.
struct RawInput {
  DataType type = DataType::kUint8;
  std::vector<int64_t> row_shape;  // empty: single items
};

// One part named anything is read in the form that it has: JSON if its content type says so, or, without one, if it begins with '[' or '{'.
// Several parts are inputs of their names, each as lists or raw bytes.
// Errors: kInvalidArgument naming the key or input, what was expected and what was found.
[[nodiscard]] Result<TensorRequest> parse_tensor_request(const Request& request, const RawInput& raw);

// The answer in one piece. kInternal: an output that does not fit its shape.
[[nodiscard]] Result<AnswerEvent> make_tensor_answer(const TensorRequest& request, const std::string& model, const std::vector<Tensor>& outputs);

}  // namespace penstock::handler
