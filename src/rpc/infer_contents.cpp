#include "rpc/infer_contents.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "openinference/open_inference.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = org::pytorch::serve::grpc::openinference;

using handler::DataType;
using handler::Tensor;

// Appends each number as an Item. false: one does not fit.
template <typename Item, typename Field>
bool append_field(std::string& data, const Field& field) {
  for (const auto value : field) {
    const auto item = static_cast<Item>(value);
    if (static_cast<std::remove_cv_t<decltype(value)>>(item) != value && value == value) return false;
    char bytes[sizeof item];
    std::memcpy(bytes, &item, sizeof item);
    data.append(bytes, sizeof item);
  }
  return true;
}

// false: a number does not fit the type, or the type has no field.
bool append_contents(Tensor& tensor, const pb::InferTensorContents& contents) {
  std::string& data = tensor.data;
  switch (tensor.type) {
    case DataType::kBool: return append_field<bool>(data, contents.bool_contents());
    case DataType::kUint8: return append_field<uint8_t>(data, contents.uint_contents());
    case DataType::kUint16: return append_field<uint16_t>(data, contents.uint_contents());
    case DataType::kUint32: return append_field<uint32_t>(data, contents.uint_contents());
    case DataType::kUint64: return append_field<uint64_t>(data, contents.uint64_contents());
    case DataType::kInt8: return append_field<int8_t>(data, contents.int_contents());
    case DataType::kInt16: return append_field<int16_t>(data, contents.int_contents());
    case DataType::kInt32: return append_field<int32_t>(data, contents.int_contents());
    case DataType::kInt64: return append_field<int64_t>(data, contents.int64_contents());
    case DataType::kFp32: return append_field<float>(data, contents.fp32_contents());
    case DataType::kFp64: return append_field<double>(data, contents.fp64_contents());
    case DataType::kBytes:
      for (const std::string& item : contents.bytes_contents()) handler::append_item(data, item);
      return true;
    case DataType::kFp16:
    case DataType::kBf16: break;
  }
  return false;
}

template <typename Item, typename Field>
void fill_field(Field& field, const std::string& data) {
  for (size_t i = 0; i + sizeof(Item) <= data.size(); i += sizeof(Item)) {
    Item item;
    std::memcpy(&item, data.data() + i, sizeof item);
    field.Add(item);
  }
}

void fill_contents(pb::InferTensorContents& contents, const Tensor& tensor) {
  const std::string& data = tensor.data;
  switch (tensor.type) {
    case DataType::kBool: return fill_field<bool>(*contents.mutable_bool_contents(), data);
    case DataType::kUint8: return fill_field<uint8_t>(*contents.mutable_uint_contents(), data);
    case DataType::kUint16: return fill_field<uint16_t>(*contents.mutable_uint_contents(), data);
    case DataType::kUint32: return fill_field<uint32_t>(*contents.mutable_uint_contents(), data);
    case DataType::kUint64: return fill_field<uint64_t>(*contents.mutable_uint64_contents(), data);
    case DataType::kInt8: return fill_field<int8_t>(*contents.mutable_int_contents(), data);
    case DataType::kInt16: return fill_field<int16_t>(*contents.mutable_int_contents(), data);
    case DataType::kInt32: return fill_field<int32_t>(*contents.mutable_int_contents(), data);
    case DataType::kInt64: return fill_field<int64_t>(*contents.mutable_int64_contents(), data);
    case DataType::kFp32: return fill_field<float>(*contents.mutable_fp32_contents(), data);
    case DataType::kFp64: return fill_field<double>(*contents.mutable_fp64_contents(), data);
    case DataType::kBytes:
      for (const std::string_view item : handler::items_of(tensor)) contents.add_bytes_contents(std::string(item));
      return;
    case DataType::kFp16:
    case DataType::kBf16: return;
  }
}

bool has_no_field(const Tensor& tensor) { return tensor.type == DataType::kFp16 || tensor.type == DataType::kBf16; }

Result<Tensor> input_of(const pb::ModelInferRequest::InferInputTensor& input, const std::string* raw) {
  const std::string name = input.name().substr(0, 200);
  const auto type = handler::parse_data_type(input.datatype());
  if (!type) {
    return error(Code::kInvalidArgument, "input '{}': datatype: expected BOOL, INT64, FP32, BYTES or another of the protocol, found '{}'", name,
                 input.datatype().substr(0, 64));
  }
  Tensor tensor{input.name(), *type, {input.shape().begin(), input.shape().end()}, ""};
  if (raw) {
    if (input.has_contents()) return error(Code::kInvalidArgument, "input '{}': has contents beside raw_input_contents; expected one of them", name);
    tensor.data = *raw;
  } else if (!append_contents(tensor, input.contents())) {
    return error(Code::kInvalidArgument, "input '{}': its contents do not fit {}{}", name, input.datatype(),
                 has_no_field(tensor) ? ", which goes into raw_input_contents" : "");
  }
  if (auto bad = check_tensor(tensor)) return *bad;
  return tensor;
}

}  // namespace

Result<InferInputs> inputs_of(const pb::ModelInferRequest& request) {
  const int count = request.inputs_size();
  if (count < 1 || static_cast<size_t>(count) > handler::kMaxTensors) {
    return error(Code::kInvalidArgument, "inputs: expected 1 to {} tensors, found {}", handler::kMaxTensors, count);
  }
  const bool raw = request.raw_input_contents_size() > 0;
  if (raw && request.raw_input_contents_size() != count) {
    return error(Code::kInvalidArgument, "raw_input_contents: expected one for each of the {} inputs, found {}", count, request.raw_input_contents_size());
  }
  InferInputs inputs{request.id(), {}};
  for (int i = 0; i < count; ++i) {
    auto tensor = input_of(request.inputs(i), raw ? &request.raw_input_contents(i) : nullptr);
    if (!tensor) return tensor.error();
    inputs.tensors.push_back(std::move(*tensor));
  }
  return inputs;
}

std::optional<Error> add_outputs(pb::ModelInferResponse& response, const pb::ModelInferRequest& request, std::vector<Tensor> outputs) {
  std::vector<Tensor> wanted;
  for (const auto& asked : request.outputs()) {
    const auto found = std::find_if(outputs.begin(), outputs.end(), [&](const Tensor& output) { return output.name == asked.name(); });
    if (found == outputs.end()) return error(Code::kInvalidArgument, "outputs: the model has no output '{}'", asked.name().substr(0, 200));
    wanted.push_back(*found);
  }
  if (request.outputs_size() == 0) wanted = std::move(outputs);
  const bool raw = request.raw_input_contents_size() > 0 || std::any_of(wanted.begin(), wanted.end(), has_no_field);
  for (Tensor& tensor : wanted) {
    auto* output = response.add_outputs();
    output->set_name(tensor.name);
    output->set_datatype(std::string(to_string(tensor.type)));
    output->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    if (raw) response.add_raw_output_contents(std::move(tensor.data));
    else fill_contents(*output->mutable_contents(), tensor);
  }
  return std::nullopt;
}

}  // namespace penstock::rpc
