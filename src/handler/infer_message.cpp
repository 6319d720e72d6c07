#include "handler/infer_message.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "handler/tensor_json.h"

namespace penstock::handler {
namespace {

using Json = nlohmann::json;

template <typename... Args>
Error bad(fmt::format_string<Args...> format, Args&&... args) {
  return error(Code::kInvalidArgument, format, std::forward<Args>(args)...);
}

Result<std::string> text_at(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) return bad("{}: the key '{}' is missing", where, key);
  if (!found->is_string()) return bad("{}: {}: expected text, found {}", where, key, text::shown(*found));
  return found->get<std::string>();
}

Result<std::vector<int64_t>> shape_at(const Json& object, const std::string& where) {
  const auto found = object.find("shape");
  const auto whole = [](const Json& size) { return size.is_number_integer() && (!size.is_number_unsigned() || size.get<uint64_t>() <= kMaxItems); };
  if (found == object.end() || !found->is_array() || !std::all_of(found->begin(), found->end(), whole)) {
    return bad("{}: shape: expected a list of whole numbers", where);
  }
  return found->get<std::vector<int64_t>>();
}

// One entry of the list; its bytes are taken off `binary` if it says that they are there.
Result<Tensor> infer_tensor(const Json& object, const std::string& where, std::string_view& binary) {
  if (!object.is_object()) return bad("{}: expected an object, found {}", where, text::shown(object));
  auto name = text_at(object, "name", where);
  if (!name) return name.error();
  auto type_name = text_at(object, "datatype", where);
  if (!type_name) return type_name.error();
  const auto type = parse_data_type(*type_name);
  if (!type) return bad("{}: datatype: expected BOOL, INT64, FP32, BYTES or another of the protocol, found '{}'", where, type_name->substr(0, 64));
  auto shape = shape_at(object, where);
  if (!shape) return shape.error();
  const auto parameters = object.find("parameters");
  const bool has_size = parameters != object.end() && parameters->is_object() && parameters->contains("binary_data_size");
  if (!has_size) {
    const auto data = object.find("data");
    if (data == object.end()) return bad("{}: the key 'data' is missing", where);
    return tensor_of_items(*data, *name, *type, std::move(*shape));
  }
  const Json& size = (*parameters)["binary_data_size"];
  if (!size.is_number_unsigned() || size.get<uint64_t>() > binary.size()) {
    return bad("{}: binary_data_size: expected at most the {} bytes that follow, found {}", where, binary.size(), text::shown(size));
  }
  Tensor tensor{std::move(*name), *type, std::move(*shape), std::string(binary.substr(0, size.get<uint64_t>()))};
  binary.remove_prefix(tensor.data.size());
  if (auto wrong = check_tensor(tensor)) return *wrong;
  return tensor;
}

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

Result<InferMessage> parse_infer(const Json& json, const char* key, std::string_view binary) {
  InferMessage message;
  if (const auto id = json.find("id"); id != json.end()) {
    if (!id->is_string()) return bad("id: expected text, found {}", text::shown(*id));
    message.id = id->get<std::string>();
  }
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array() || found->empty() || found->size() > kMaxTensors) {
    return bad("{}: expected a list of 1 to {} tensors", key, kMaxTensors);
  }
  for (size_t i = 0; i < found->size(); ++i) {
    auto tensor = infer_tensor((*found)[i], fmt::format("{}[{}]", key, i), binary);
    if (!tensor) return tensor.error();
    message.tensors.push_back(std::move(*tensor));
  }
  if (!binary.empty()) return bad("{} bytes follow that no binary_data_size claims", binary.size());
  return message;
}

std::string infer_json(const InferMessage& message, const char* key, std::string* binary) {
  std::string json = fmt::format("{{\"model_name\": {}, ", quoted(message.model));
  if (!message.id.empty()) json += fmt::format("\"id\": {}, ", quoted(message.id));
  json += fmt::format("\"{}\": [", key);
  for (size_t i = 0; i < message.tensors.size(); ++i) {
    const Tensor& tensor = message.tensors[i];
    json += fmt::format("{}{{\"name\": {}, \"datatype\": \"{}\", \"shape\": {}, ", i > 0 ? ", " : "", quoted(tensor.name), to_string(tensor.type),
                        shown_shape(tensor.shape));
    if (binary) {
      json += fmt::format("\"parameters\": {{\"binary_data_size\": {}}}}}", tensor.data.size());
      *binary += tensor.data;
    } else {
      json += "\"data\": ";
      append_items(json, tensor);
      json += '}';
    }
  }
  return json + "]}";
}

Result<size_t> infer_json_length(const std::string& header, size_t body) {
  size_t length = 0;
  const auto [end, failed] = std::from_chars(header.data(), header.data() + header.size(), length);
  if (failed == std::errc() && end == header.data() + header.size() && length <= body) return length;
  return bad("{}: expected at most the body's {} bytes, found '{}'", kInferenceHeader, body, header.substr(0, 64));
}

Result<std::vector<Tensor>> parse_infer_answer(const AnswerHead& head, const std::string& bytes) {
  const std::string* header = find_header(head.headers, kInferenceHeader);
  const size_t first = bytes.find_first_not_of(" \t\r\n");
  if (header || (first != std::string::npos && bytes[first] == '{' && bytes.find("\"outputs\"") != std::string::npos)) {
    auto length = header ? infer_json_length(*header, bytes.size()) : Result<size_t>(bytes.size());
    if (!length) return length.error();
    const std::string_view all = bytes;
    auto json = text::parse_json(all.substr(0, *length), "the handler's answer", Code::kInternal, kInferLimits);
    if (!json) return json.error();
    if (json->is_object() && json->contains("outputs")) {
      auto message = parse_infer(*json, "outputs", all.substr(*length));
      if (!message) return error(Code::kInternal, "the handler's answer: {}", message.error().message());
      return std::move(message->tensors);
    }
  }
  Tensor whole{"output_0", DataType::kBytes, {1}, ""};
  append_item(whole.data, bytes);
  return std::vector<Tensor>{std::move(whole)};
}

}  // namespace penstock::handler
