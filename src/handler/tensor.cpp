#include "handler/tensor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>

namespace penstock::handler {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are passed on as they lie in memory");

struct Kind {
  DataType type;
  std::string_view name;
  size_t size;
};

constexpr std::array<Kind, 14> kKinds = {{
    {DataType::kBool, "BOOL", 1},    {DataType::kUint8, "UINT8", 1},  {DataType::kUint16, "UINT16", 2}, {DataType::kUint32, "UINT32", 4},
    {DataType::kUint64, "UINT64", 8}, {DataType::kInt8, "INT8", 1},   {DataType::kInt16, "INT16", 2},   {DataType::kInt32, "INT32", 4},
    {DataType::kInt64, "INT64", 8},  {DataType::kFp16, "FP16", 2},    {DataType::kBf16, "BF16", 2},     {DataType::kFp32, "FP32", 4},
    {DataType::kFp64, "FP64", 8},    {DataType::kBytes, "BYTES", 0},
}};

const Kind& kind_of(DataType type) { return *std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& kind) { return kind.type == type; }); }

constexpr size_t kLengthBytes = 4;

// The next item of kBytes, taken off the front; nullopt: the data ends within it.
std::optional<std::string_view> take_item(std::string_view& data) {
  uint32_t length = 0;
  if (data.size() < kLengthBytes) return std::nullopt;
  std::memcpy(&length, data.data(), kLengthBytes);
  data.remove_prefix(kLengthBytes);
  if (length > data.size()) return std::nullopt;
  const std::string_view item = data.substr(0, length);
  data.remove_prefix(length);
  return item;
}

}  // namespace

std::string_view to_string(DataType type) { return kind_of(type).name; }

std::optional<DataType> parse_data_type(std::string_view name) {
  const auto* found = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& kind) { return kind.name == name; });
  return found == kKinds.end() ? std::nullopt : std::optional(found->type);
}

size_t item_size(DataType type) { return kind_of(type).size; }

Result<int64_t> num_items(const std::vector<int64_t>& shape) {
  if (shape.size() > kMaxDimensions) {
    return error(Code::kInvalidArgument, "shape: expected at most {} dimensions, found {}", kMaxDimensions, shape.size());
  }
  int64_t items = 1;
  for (const int64_t size : shape) {
    if (size < 0) return error(Code::kInvalidArgument, "shape {}: a dimension is negative", shown_shape(shape));
    if (size != 0 && items > kMaxItems / size) return error(Code::kInvalidArgument, "shape {}: more than {} items", shown_shape(shape), kMaxItems);
    items *= size;
  }
  return items;
}

std::string shown_shape(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::optional<Error> check_tensor(const Tensor& tensor) {
  auto items = num_items(tensor.shape);
  const std::string name = tensor.name.substr(0, 200);
  if (!items) return error(items.error().code(), "tensor '{}': {}", name, items.error().message());
  if (tensor.type != DataType::kBytes) {
    const size_t expected = static_cast<size_t>(*items) * item_size(tensor.type);
    if (tensor.data.size() == expected) return std::nullopt;
    return error(Code::kInvalidArgument, "tensor '{}': {} of shape {} has {} bytes, found {}", name, to_string(tensor.type),
                 shown_shape(tensor.shape), expected, tensor.data.size());
  }
  std::string_view rest = tensor.data;
  int64_t found = 0;
  while (!rest.empty()) {
    if (!take_item(rest)) return error(Code::kInvalidArgument, "tensor '{}': its BYTES end within an item", name);
    ++found;
  }
  if (found == *items) return std::nullopt;
  return error(Code::kInvalidArgument, "tensor '{}': BYTES of shape {}: expected {} items, found {}", name, shown_shape(tensor.shape), *items, found);
}

void append_item(std::string& data, std::string_view item) {
  PENSTOCK_CHECK(item.size() <= std::numeric_limits<uint32_t>::max(), "an item of {} bytes", item.size());
  const auto length = static_cast<uint32_t>(item.size());
  char bytes[kLengthBytes];
  std::memcpy(bytes, &length, kLengthBytes);
  data.append(bytes, kLengthBytes).append(item);
}

std::vector<std::string_view> items_of(const Tensor& tensor) {
  std::vector<std::string_view> items;
  std::string_view rest = tensor.data;
  while (!rest.empty()) items.push_back(take_item(rest).value());
  return items;
}

}  // namespace penstock::handler
