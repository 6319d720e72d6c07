#include "handler/tensor_request.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "handler/infer_message.h"
#include "handler/tensor_json.h"

namespace penstock::handler {
namespace {

using Json = nlohmann::json;

template <typename... Args>
Error bad(fmt::format_string<Args...> format, Args&&... args) {
  return error(Code::kInvalidArgument, format, std::forward<Args>(args)...);
}

enum class Look { kJson, kBytes };

Look look_of(const Part& part) {
  std::string type = part.content_type.substr(0, part.content_type.find(';'));
  std::transform(type.begin(), type.end(), type.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (type == "application/json" || type.ends_with("+json")) return Look::kJson;
  if (type == "application/octet-stream") return Look::kBytes;
  const size_t first = part.bytes.find_first_not_of(" \t\r\n");
  return first != std::string::npos && (part.bytes[first] == '[' || part.bytes[first] == '{') ? Look::kJson : Look::kBytes;
}

Result<Tensor> raw_tensor(const Part& part, const RawInput& raw) {
  auto items = num_items(raw.row_shape);
  if (!items) return items.error();
  const size_t row_bytes = static_cast<size_t>(*items) * item_size(raw.type);
  if (row_bytes == 0 || part.bytes.empty() || part.bytes.size() % row_bytes != 0) {
    return bad("input '{}': {} bytes; expected whole rows of {} {}, {} bytes each", part.name, part.bytes.size(), to_string(raw.type),
               shown_shape(raw.row_shape), row_bytes);
  }
  std::vector<int64_t> shape = raw.row_shape;
  shape.insert(shape.begin(), static_cast<int64_t>(part.bytes.size() / row_bytes));
  return Tensor{part.name, raw.type, std::move(shape), part.bytes};
}

// One input for each key of the instances, or one without a name.
Result<std::vector<Tensor>> inputs_of_instances(const Json& instances) {
  if (!instances.is_array() || instances.empty()) return bad("instances: expected a list with at least one item, found {}", text::shown(instances));
  std::vector<Tensor> inputs;
  if (!instances.front().is_object()) {
    auto tensor = tensor_of_lists(instances, "");
    if (!tensor) return tensor.error();
    inputs.push_back(std::move(*tensor));
    return inputs;
  }
  if (instances.front().size() > kMaxTensors) return bad("instances: expected at most {} keys", kMaxTensors);
  for (const auto& [key, first] : instances.front().items()) {
    Json rows = Json::array();
    for (const Json& instance : instances) {
      if (!instance.is_object() || !instance.contains(key) || instance.size() != instances.front().size()) {
        return bad("instances: expected the same keys in each, found '{}' in the first only", key);
      }
      rows.push_back(instance[key]);
    }
    auto tensor = tensor_of_lists(rows, key);
    if (!tensor) return tensor.error();
    inputs.push_back(std::move(*tensor));
  }
  if (inputs.empty()) return bad("instances: expected keys in each, found none");
  return inputs;
}

Result<TensorRequest> json_request(std::string_view text, TensorForm form, std::string_view binary) {
  Json json;
  {
    auto parsed = text::parse_json(text, "the request", Code::kInvalidArgument, kInferLimits);
    if (!parsed) return parsed.error();
    json = std::move(*parsed);
  }
  if (json.is_object() && json.contains("inputs")) {
    auto message = parse_infer(json, "inputs", binary);
    if (!message) return message.error();
    return TensorRequest{form, std::move(message->id), std::move(message->tensors), true};
  }
  if (form == TensorForm::kBinary) return bad("the request: the key 'inputs' is missing, which {} needs", kInferenceHeader);
  if (!json.is_object()) {
    auto tensor = tensor_of_lists(json, "");
    if (!tensor) return tensor.error();
    return TensorRequest{TensorForm::kLists, "", {std::move(*tensor)}, true};
  }
  if (!json.contains("instances")) return bad("the request: expected lists of numbers, or an object with the key 'instances' or 'inputs'");
  auto inputs = inputs_of_instances(json["instances"]);
  if (!inputs) return inputs.error();
  const bool named = !inputs->front().name.empty();
  return TensorRequest{TensorForm::kInstances, "", std::move(*inputs), !named};
}

Result<TensorRequest> one_part(const Request& request, const RawInput& raw) {
  const Part& part = request.parts[0];
  if (const std::string* header = find_header(request.headers, kInferenceHeader)) {
    auto length = infer_json_length(*header, part.bytes.size());
    if (!length) return length.error();
    const std::string_view bytes = part.bytes;
    return json_request(bytes.substr(0, *length), TensorForm::kBinary, bytes.substr(*length));
  }
  if (look_of(part) == Look::kJson) return json_request(part.bytes, TensorForm::kInfer, "");
  auto tensor = raw_tensor(part, raw);
  if (!tensor) return tensor.error();
  return TensorRequest{TensorForm::kRaw, "", {std::move(*tensor)}, true};
}

}  // namespace

Result<TensorRequest> parse_tensor_request(const Request& request, const RawInput& raw) {
  if (request.parts.empty()) return bad("the request has no input; expected tensors as JSON or bytes");
  if (request.parts.size() == 1) return one_part(request, raw);
  if (request.parts.size() > kMaxTensors) return bad("the request has {} inputs; expected at most {}", request.parts.size(), kMaxTensors);
  TensorRequest result{TensorForm::kLists, "", {}, /*ordered=*/false};
  for (const Part& part : request.parts) {
    auto tensor = [&]() -> Result<Tensor> {
      if (look_of(part) == Look::kBytes) return raw_tensor(part, raw);
      auto json = text::parse_json(part.bytes, "input '" + part.name + "'", Code::kInvalidArgument, kInferLimits);
      if (!json) return json.error();
      return tensor_of_lists(*json, part.name);
    }();
    if (!tensor) return tensor.error();
    result.inputs.push_back(std::move(*tensor));
  }
  return result;
}

Result<AnswerEvent> make_tensor_answer(const TensorRequest& request, const std::string& model, const std::vector<Tensor>& outputs) {
  for (const Tensor& output : outputs) {
    if (auto wrong = check_tensor(output)) return error(Code::kInternal, "the model's output: {}", wrong->message());
  }
  AnswerEvent event{AnswerHead{200, "application/json", {}}, "", true, std::nullopt};
  std::string binary;
  switch (request.form) {
    case TensorForm::kRaw:
      event.head->content_type = "application/octet-stream";
      if (!outputs.empty()) event.bytes = outputs[0].data;
      return event;
    case TensorForm::kInfer: event.bytes = infer_json({model, request.id, outputs}, "outputs", nullptr); return event;
    case TensorForm::kBinary:
      event.bytes = infer_json({model, request.id, outputs}, "outputs", &binary);
      event.head->content_type = "application/octet-stream";
      event.head->headers.emplace_back(kInferenceHeader, std::to_string(event.bytes.size()));
      event.bytes += binary;
      return event;
    case TensorForm::kInstances: event.bytes = "{\"predictions\": "; break;
    case TensorForm::kLists: break;
  }
  if (outputs.size() == 1) {
    append_lists(event.bytes, outputs[0]);
  } else {
    for (size_t i = 0; i < outputs.size(); ++i) {
      event.bytes += fmt::format("{}{}: ", i > 0 ? ", " : "{", Json(outputs[i].name).dump(-1, ' ', false, Json::error_handler_t::replace));
      append_lists(event.bytes, outputs[i]);
    }
    event.bytes += outputs.empty() ? "{}" : "}";
  }
  if (request.form == TensorForm::kInstances) event.bytes += '}';
  return event;
}

}  // namespace penstock::handler
