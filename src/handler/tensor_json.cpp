#include "handler/tensor_json.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

namespace penstock::handler {
namespace {

using Json = nlohmann::json;

template <typename Number>
void append_number(std::string& data, Number number) {
  char bytes[sizeof number];
  std::memcpy(bytes, &number, sizeof number);
  data.append(bytes, sizeof number);
}

// A whole number that fits.
template <typename Integer>
bool append_integer(std::string& data, const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<Integer>::max())) return false;
    append_number(data, static_cast<Integer>(number));
    return true;
  }
  if (!value.is_number_integer()) return false;
  const auto number = value.get<int64_t>();  // negative
  if (std::is_unsigned_v<Integer> || number < static_cast<int64_t>(std::numeric_limits<Integer>::min())) return false;
  append_number(data, static_cast<Integer>(number));
  return true;
}

// false: it does not fit the type.
bool append_value(std::string& data, const Json& value, DataType type) {
  switch (type) {
    case DataType::kBool: return value.is_boolean() && (data.push_back(value.get<bool>() ? 1 : 0), true);
    case DataType::kUint8: return append_integer<uint8_t>(data, value);
    case DataType::kUint16: return append_integer<uint16_t>(data, value);
    case DataType::kUint32: return append_integer<uint32_t>(data, value);
    case DataType::kUint64: return append_integer<uint64_t>(data, value);
    case DataType::kInt8: return append_integer<int8_t>(data, value);
    case DataType::kInt16: return append_integer<int16_t>(data, value);
    case DataType::kInt32: return append_integer<int32_t>(data, value);
    case DataType::kInt64: return append_integer<int64_t>(data, value);
    case DataType::kFp32: {
      if (!value.is_number() || std::abs(value.get<double>()) > static_cast<double>(std::numeric_limits<float>::max())) return false;
      append_number(data, value.get<float>());
      return true;
    }
    case DataType::kFp64: return value.is_number() && (append_number(data, value.get<double>()), true);
    case DataType::kBytes: return value.is_string() && (append_item(data, value.get_ref<const std::string&>()), true);
    case DataType::kFp16:
    case DataType::kBf16: break;
  }
  return false;
}

const Json* first_item(const Json& lists) {
  const Json* value = &lists;
  while (value->is_array()) {
    if (value->empty()) return nullptr;
    value = &value->front();
  }
  return value;
}

bool any_fraction(const Json& lists) {
  if (!lists.is_array()) return lists.is_number_float();
  for (const Json& item : lists) {
    if (any_fraction(item)) return true;
  }
  return false;
}

DataType type_of(const Json& lists) {
  const Json* item = first_item(lists);
  if (!item) return DataType::kFp32;
  if (item->is_boolean()) return DataType::kBool;
  if (item->is_string()) return DataType::kBytes;
  return any_fraction(lists) ? DataType::kFp32 : DataType::kInt64;
}

std::vector<int64_t> shape_of(const Json& lists) {
  std::vector<int64_t> shape;
  for (const Json* value = &lists; value->is_array(); value = &value->front()) {
    shape.push_back(static_cast<int64_t>(value->size()));
    if (value->empty()) break;
  }
  return shape;
}

std::string shown_item(const Json& value) {
  if (value.is_array() || value.is_object()) return value.type_name();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 64);
}

// Appends every item below `lists`, whose shape must be `shape` from `depth` on.
std::optional<Error> append_all(Tensor& tensor, const Json& lists, size_t depth) {
  if (depth == tensor.shape.size()) {
    if (append_value(tensor.data, lists, tensor.type)) return std::nullopt;
    return error(Code::kInvalidArgument, "input '{}': expected {}, found {}", tensor.name, to_string(tensor.type), shown_item(lists));
  }
  if (!lists.is_array() || static_cast<int64_t>(lists.size()) != tensor.shape[depth]) {
    return error(Code::kInvalidArgument, "input '{}': expected lists of shape {}, found {} at depth {}", tensor.name, shown_shape(tensor.shape),
                 lists.is_array() ? fmt::format("a list of {}", lists.size()) : shown_item(lists), depth + 1);
  }
  for (const Json& item : lists) {
    if (auto bad = append_all(tensor, item, depth + 1)) return bad;
  }
  return std::nullopt;
}

Result<Tensor> fill(Tensor tensor, const Json& lists) {
  if (tensor.type == DataType::kFp16 || tensor.type == DataType::kBf16) {
    return error(Code::kInvalidArgument, "input '{}': JSON cannot hold {}; send FP32, or bytes", tensor.name, to_string(tensor.type));
  }
  auto items = num_items(tensor.shape);
  if (!items) return error(items.error().code(), "input '{}': {}", tensor.name, items.error().message());
  if (auto bad = append_all(tensor, lists, 0)) return *bad;
  return tensor;
}

float float_of_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, exponent = (half >> 10) & 0x1Fu, fraction = half & 0x3FFu;
  if (exponent == 0) {
    const float small = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -small : small;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | (fraction << 13);
  return std::bit_cast<float>(bits);
}

template <typename Number>
Number read(std::string_view data, size_t i) {
  Number number;
  std::memcpy(&number, data.data() + i * sizeof number, sizeof number);
  return number;
}

template <typename Real>
void append_real(std::string& json, Real value) {
  if (std::isfinite(value)) fmt::format_to(std::back_inserter(json), "{}", value);
  else json += "null";
}

// Item i as JSON.
void append_one(std::string& json, const Tensor& tensor, const std::vector<std::string_view>& texts, size_t i) {
  const std::string_view data = tensor.data;
  const auto whole = [&](auto number) { fmt::format_to(std::back_inserter(json), "{}", number); };
  switch (tensor.type) {
    case DataType::kBool: json += data[i] ? "true" : "false"; break;
    case DataType::kUint8: whole(static_cast<unsigned>(read<uint8_t>(data, i))); break;
    case DataType::kUint16: whole(read<uint16_t>(data, i)); break;
    case DataType::kUint32: whole(read<uint32_t>(data, i)); break;
    case DataType::kUint64: whole(read<uint64_t>(data, i)); break;
    case DataType::kInt8: whole(static_cast<int>(read<int8_t>(data, i))); break;
    case DataType::kInt16: whole(read<int16_t>(data, i)); break;
    case DataType::kInt32: whole(read<int32_t>(data, i)); break;
    case DataType::kInt64: whole(read<int64_t>(data, i)); break;
    case DataType::kFp16: append_real(json, float_of_half(read<uint16_t>(data, i))); break;
    case DataType::kBf16: append_real(json, std::bit_cast<float>(static_cast<uint32_t>(read<uint16_t>(data, i)) << 16)); break;
    case DataType::kFp32: append_real(json, read<float>(data, i)); break;
    case DataType::kFp64: append_real(json, read<double>(data, i)); break;
    case DataType::kBytes: json += Json(texts[i]).dump(-1, ' ', false, Json::error_handler_t::replace); break;
  }
}

class ListWriter {
 public:
  ListWriter(std::string& json, const Tensor& tensor) : json_(json), tensor_(tensor) {
    if (tensor.type == DataType::kBytes) texts_ = items_of(tensor);
  }
  void write(const std::vector<int64_t>& shape, size_t depth = 0) {
    if (depth == shape.size()) return append_one(json_, tensor_, texts_, next_++);
    json_ += '[';
    for (int64_t i = 0; i < shape[depth]; ++i) {
      if (i > 0) json_ += ", ";
      write(shape, depth + 1);
    }
    json_ += ']';
  }

 private:
  std::string& json_;
  const Tensor& tensor_;
  std::vector<std::string_view> texts_;
  size_t next_ = 0;
};

}  // namespace

Result<Tensor> tensor_of_lists(const Json& lists, std::string name, std::optional<DataType> type) {
  return fill({std::move(name), type ? *type : type_of(lists), shape_of(lists), ""}, lists);
}

Result<Tensor> tensor_of_items(const Json& lists, std::string name, DataType type, std::vector<int64_t> shape) {
  auto items = num_items(shape);
  if (!items) return error(items.error().code(), "input '{}': {}", name, items.error().message());
  const bool flat = lists.is_array() && static_cast<int64_t>(lists.size()) == *items && (lists.empty() || !lists.front().is_array());
  Tensor tensor{std::move(name), type, flat ? std::vector<int64_t>{*items} : shape, ""};
  auto filled = fill(std::move(tensor), lists);
  if (filled) filled->shape = std::move(shape);
  return filled;
}

void append_lists(std::string& json, const Tensor& tensor) { ListWriter(json, tensor).write(tensor.shape); }

void append_items(std::string& json, const Tensor& tensor) { ListWriter(json, tensor).write({num_items(tensor.shape).value()}); }

}  // namespace penstock::handler
