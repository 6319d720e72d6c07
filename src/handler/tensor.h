#pragma once
// A tensor on its way between a client and a model: the form of KServe's Open Inference protocol. Plain bytes; no LibTorch.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::handler {

enum class DataType {
  kBool, kUint8, kUint16, kUint32, kUint64, kInt8, kInt16, kInt32, kInt64, kFp16, kBf16, kFp32, kFp64,
  kBytes,  // items of any length
};
// "FP32", as the protocol writes it.
[[nodiscard]] std::string_view to_string(DataType type);
[[nodiscard]] std::optional<DataType> parse_data_type(std::string_view name);
// Of one item; 0 for kBytes.
[[nodiscard]] size_t item_size(DataType type);

struct Tensor {
  std::string name;
  DataType type = DataType::kFp32;
  std::vector<int64_t> shape;  // empty: one item
  std::string data;            // row by row, little endian; of kBytes: each item as 4 bytes of length, then its bytes
};

inline constexpr size_t kMaxTensors = 256;    // of one request
inline constexpr size_t kMaxDimensions = 16;
inline constexpr int64_t kMaxItems = int64_t{1} << 40;

// How many items the shape has. kInvalidArgument for a negative dimension, or more than kMaxDimensions or kMaxItems.
[[nodiscard]] Result<int64_t> num_items(const std::vector<int64_t>& shape);
// "[2, 3]", for messages.
[[nodiscard]] std::string shown_shape(const std::vector<int64_t>& shape);
// kInvalidArgument naming the tensor unless its data has as many items as its shape.
[[nodiscard]] std::optional<Error> check_tensor(const Tensor& tensor);

// Items of kBytes. REQUIRES of items_of(): check_tensor() is content.
void append_item(std::string& data, std::string_view item);
[[nodiscard]] std::vector<std::string_view> items_of(const Tensor& tensor);

}  // namespace penstock::handler
