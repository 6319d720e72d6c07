#include "fake_model.h"

#include <cstring>

namespace penstock::tests {
namespace {

using handler::DataType;

template <typename Number>
void double_all(std::string& data) {
  for (size_t i = 0; i + sizeof(Number) <= data.size(); i += sizeof(Number)) {
    Number number;
    std::memcpy(&number, data.data() + i, sizeof number);
    number = static_cast<Number>(number + number);
    std::memcpy(data.data() + i, &number, sizeof number);
  }
}

bool holds_99(const handler::Tensor& tensor) {
  for (size_t i = 0; tensor.type == DataType::kInt64 && i < tensor.data.size(); i += sizeof(int64_t)) {
    int64_t number = 0;
    std::memcpy(&number, tensor.data.data() + i, sizeof number);
    if (number == 99) return true;
  }
  return false;
}

}  // namespace

Result<std::vector<handler::Tensor>> FakeModel::run(const std::vector<handler::Tensor>& inputs) {
  std::vector<handler::Tensor> outputs = inputs;
  for (handler::Tensor& tensor : outputs) {
    if (holds_99(tensor)) return Error(Code::kInvalidArgument, "99 is not allowed");
    switch (tensor.type) {
      case DataType::kUint8: double_all<uint8_t>(tensor.data); break;
      case DataType::kInt8: double_all<int8_t>(tensor.data); break;
      case DataType::kInt32: double_all<int32_t>(tensor.data); break;
      case DataType::kInt64: double_all<int64_t>(tensor.data); break;
      case DataType::kFp32: double_all<float>(tensor.data); break;
      case DataType::kFp64: double_all<double>(tensor.data); break;
      default: break;  // as it came
    }
  }
  return outputs;
}

}  // namespace penstock::tests
