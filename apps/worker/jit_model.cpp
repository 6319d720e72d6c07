#include "apps/worker/jit_model.h"

#include <torch/cuda.h>
#include <torch/script.h>

#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "handler/torch_failure.h"

namespace penstock {
namespace {

using handler::DataType;
using handler::Tensor;

constexpr std::array<std::pair<DataType, at::ScalarType>, 10> kTypes = {{
    {DataType::kBool, at::kBool}, {DataType::kUint8, at::kByte}, {DataType::kInt8, at::kChar}, {DataType::kInt16, at::kShort},
    {DataType::kInt32, at::kInt}, {DataType::kInt64, at::kLong}, {DataType::kFp16, at::kHalf}, {DataType::kBf16, at::kBFloat16},
    {DataType::kFp32, at::kFloat}, {DataType::kFp64, at::kDouble},
}};

Result<c10::IValue> value_of(const Tensor& input, const at::Device& device) {
  if (input.type == DataType::kBytes) {
    if (input.shape.size() != 1) {
      return error(Code::kInvalidArgument, "input '{}': BYTES of shape {}; expected one dimension: a list of texts", input.name,
                   handler::shown_shape(input.shape));
    }
    c10::List<std::string> texts;
    for (const std::string_view text : handler::items_of(input)) texts.push_back(std::string(text));
    return c10::IValue(texts);
  }
  for (const auto& [ours, theirs] : kTypes) {
    if (ours != input.type) continue;
    at::Tensor tensor = at::empty(input.shape, theirs);
    if (!input.data.empty()) std::memcpy(tensor.data_ptr(), input.data.data(), input.data.size());
    return c10::IValue(tensor.to(device));
  }
  return error(Code::kInvalidArgument, "input '{}': torch.jit models take no {}; send INT64", input.name, to_string(input.type));
}

Result<Tensor> tensor_of(at::Tensor value, std::string name) {
  value = value.detach().to(at::kCPU).contiguous();
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs != value.scalar_type()) continue;
    return Tensor{std::move(name), ours, value.sizes().vec(), std::string(static_cast<const char*>(value.data_ptr()), value.nbytes())};
  }
  return error(Code::kInternal, "the model's output '{}' is of type {}, which has no name in the protocol", name, c10::toString(value.scalar_type()));
}

Tensor tensor_of_texts(const std::vector<std::string>& texts, std::string name) {
  Tensor tensor{std::move(name), DataType::kBytes, {static_cast<int64_t>(texts.size())}, ""};
  for (const std::string& text : texts) handler::append_item(tensor.data, text);
  return tensor;
}

// Appends what one value of the model's answer is; nullopt: it could.
std::optional<Error> append_output(std::vector<Tensor>& outputs, const c10::IValue& value, const std::string& name) {
  if (value.isTensor()) {
    auto tensor = tensor_of(value.toTensor(), name);
    if (!tensor) return tensor.error();
    outputs.push_back(std::move(*tensor));
    return std::nullopt;
  }
  if (value.isString()) {
    outputs.push_back(tensor_of_texts({value.toStringRef()}, name));
    return std::nullopt;
  }
  if (value.isList() && value.toListRef().size() > 0 && value.toListRef()[0].isString()) {
    std::vector<std::string> texts;
    for (const c10::IValue& text : value.toListRef()) texts.push_back(text.toStringRef());
    outputs.push_back(tensor_of_texts(texts, name));
    return std::nullopt;
  }
  return error(Code::kInternal, "the model's output '{}' is a {}; expected a tensor or texts", name, value.tagKind());
}

Result<std::vector<Tensor>> outputs_of(const c10::IValue& answer) {
  std::vector<Tensor> outputs;
  if (answer.isGenericDict()) {
    for (const auto& entry : answer.toGenericDict()) {
      if (!entry.key().isString()) return Error(Code::kInternal, "the model's answer is a dictionary whose keys are not texts");
      if (auto bad = append_output(outputs, entry.value(), entry.key().toStringRef())) return *bad;
    }
    return outputs;
  }
  const bool several = answer.isTuple() || answer.isTensorList();
  if (!several) {
    if (auto bad = append_output(outputs, answer, "output_0")) return *bad;
    return outputs;
  }
  const auto values = answer.isTuple() ? answer.toTupleRef().elements().vec() : answer.toListRef().vec();
  for (size_t i = 0; i < values.size(); ++i) {
    if (auto bad = append_output(outputs, values[i], fmt::format("output_{}", i))) return *bad;
  }
  return outputs;
}

// LibTorch's reason without where in LibTorch and in the model's source it came up.
std::string brief(const std::exception& failure) {
  const auto* error = dynamic_cast<const c10::Error*>(&failure);
  std::string_view text = error ? error->what_without_backtrace() : failure.what();
  if (const size_t reason = text.rfind("RuntimeError: "); reason != std::string_view::npos) text.remove_prefix(reason + 14);
  return std::string(text.substr(0, std::min<size_t>(text.find('\n'), 500)));
}

class JitModel final : public handler::TensorModel {
 public:
  JitModel(torch::jit::Module module, at::Device device) : module_(std::move(module)), device_(device) {
    const auto& arguments = module_.get_method("forward").function().getSchema().arguments();
    for (size_t i = 1; i < arguments.size(); ++i) names_.push_back(arguments[i].name());  // the first is self
  }
  [[nodiscard]] std::vector<std::string> input_names() const override { return names_; }

  Result<std::vector<Tensor>> run(const std::vector<Tensor>& inputs) override {
    const c10::InferenceMode no_gradients;
    try {
      std::vector<c10::IValue> values;
      for (const Tensor& input : inputs) {
        auto value = value_of(input, device_);
        if (!value) return value.error();
        values.push_back(std::move(*value));
      }
      return outputs_of(module_.forward(std::move(values)));
    } catch (const std::exception& failure) {
      std::string shown;
      for (const Tensor& input : inputs) {
        shown += fmt::format("{}{}{}{} {}", shown.empty() ? "" : ", ", input.name, input.name.empty() ? "" : ": ", to_string(input.type),
                             handler::shown_shape(input.shape));
      }
      return failure_of(shown, brief(failure));
    }
  }

  [[nodiscard]] bool broken() const override { return broken_; }

 private:
  Error failure_of(const std::string& inputs, const std::string& why) {
    const Code code = handler::code_of_torch_failure(why);
    if (code == Code::kInvalidArgument) return error(code, "the model does not take ({}): {}", inputs, why);
    if (code == Code::kResourceExhausted) return error(code, "the model finds no memory for ({}): {}", inputs, why);
    broken_ = true;
    return error(code, "the model's device has failed at ({}): {}", inputs, why);
  }

  std::atomic<bool> broken_{false};
  torch::jit::Module module_;
  const at::Device device_;
  std::vector<std::string> names_;
};

}  // namespace

Result<std::unique_ptr<handler::TensorModel>> load_jit_model(const std::filesystem::path& file) {
  const at::Device device = at::hasCUDA() && torch::cuda::is_available() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  try {
    torch::jit::Module module = torch::jit::load(file.string(), device);
    module.eval();
    if (!module.find_method("forward")) return error(Code::kInvalidArgument, "{}: the model has no method forward()", file.string());
    return std::unique_ptr<handler::TensorModel>(std::make_unique<JitModel>(std::move(module), device));
  } catch (const std::exception& failure) {
    return error(Code::kDataLoss, "{} is not a torch.jit file: {}", file.string(), brief(failure));
  }
}

}  // namespace penstock
