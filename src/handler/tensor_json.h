#pragma once
// Tensors as JSON and back. For .cpp files: it brings in nlohmann's header.
#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "handler/tensor.h"

namespace penstock::handler {

// A number, truth value or text, or lists of them within each other, all of one length at each depth. Without a type: BOOL of truth values,
// INT64 of whole numbers, FP32 of numbers, BYTES of texts.
// Errors: kInvalidArgument: lists of different lengths, items of different kinds, a number outside the type; FP16 and BF16, which JSON cannot hold.
[[nodiscard]] Result<Tensor> tensor_of_lists(const nlohmann::json& lists, std::string name, std::optional<DataType> type = std::nullopt);

// As above for a known type and shape; the items may stand in one flat list.
[[nodiscard]] Result<Tensor> tensor_of_items(const nlohmann::json& lists, std::string name, DataType type, std::vector<int64_t> shape);

// The items as JSON text, as lists within each other by shape, or in one flat list. What is not finite is null; FP16 and BF16 become numbers.
// Texts that are not UTF-8 have what is wrong replaced.
void append_lists(std::string& json, const Tensor& tensor);
void append_items(std::string& json, const Tensor& tensor);

}  // namespace penstock::handler
