#pragma once
// Messages of KServe's Open Inference protocol as JSON, with or without its extension "binary tensor data". For .cpp files: it brings in
// nlohmann's header.
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "handler/request.h"
#include "handler/tensor.h"
#include "text/json_input.h"

namespace penstock::handler {

// The header that says where the JSON ends and tensors' bytes begin; in requests and answers.
inline constexpr const char* kInferenceHeader = "Inference-Header-Content-Length";
inline constexpr text::JsonLimits kInferLimits{.depth = static_cast<int>(kMaxDimensions) + 4};

struct InferMessage {
  std::string model;
  std::string id;               // may be empty
  std::vector<Tensor> tensors;
};

// `key`: "inputs" or "outputs". The model's name is not read. `binary`: what follows the JSON.
// Errors: kInvalidArgument naming the entry, what was expected and what was found.
[[nodiscard]] Result<InferMessage> parse_infer(const nlohmann::json& json, const char* key, std::string_view binary);

// With `binary` the tensors' bytes are appended to it, else they stand in the JSON. REQUIRES: check_tensor() is content with each.
[[nodiscard]] std::string infer_json(const InferMessage& message, const char* key, std::string* binary);

// The value of kInferenceHeader. kInvalidArgument unless it is a number of at most `body`.
[[nodiscard]] Result<size_t> infer_json_length(const std::string& header, size_t body);

// What a handler answers, as tensors: those of an "outputs" message of either form; anything else is one BYTES tensor, "output_0".
// kInternal: an "outputs" message that is none.
[[nodiscard]] Result<std::vector<Tensor>> parse_infer_answer(const AnswerHead& head, const std::string& bytes);

}  // namespace penstock::handler
