#include "formats/gguf_file.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace penstock::formats {
namespace {

constexpr uint64_t kAlignment = 32;

std::string shown(const GgufValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value.value)) return std::to_string(*integer);
  if (const auto* integer = std::get_if<uint64_t>(&value.value)) return std::to_string(*integer);
  if (const auto* real = std::get_if<double>(&value.value)) return fmt::format("{}", *real);
  if (const auto* flag = std::get_if<bool>(&value.value)) return *flag ? "true" : "false";
  if (const auto* text = std::get_if<std::string>(&value.value)) return fmt::format("the text '{}'", text->substr(0, 80));
  return "a list";
}

template <typename T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void put_text(std::string& out, const std::string& text) {
  put<uint64_t>(out, text.size());
  out += text;
}

void put_integer(std::string& out, GgufKind kind, int64_t value) {
  switch (kind) {
    case GgufKind::kU8: case GgufKind::kI8: case GgufKind::kBool: return put(out, static_cast<uint8_t>(value));
    case GgufKind::kU16: case GgufKind::kI16: return put(out, static_cast<uint16_t>(value));
    case GgufKind::kU32: case GgufKind::kI32: return put(out, static_cast<uint32_t>(value));
    default: return put(out, value);
  }
}

void put_real(std::string& out, GgufKind kind, double value) {
  if (kind == GgufKind::kF32) put(out, static_cast<float>(value));
  else put(out, value);
}

void put_value(std::string& out, const GgufValue& value) {
  put(out, static_cast<uint32_t>(value.kind));
  if (const auto* integer = std::get_if<int64_t>(&value.value)) return put_integer(out, value.kind, *integer);
  if (const auto* integer = std::get_if<uint64_t>(&value.value)) return put(out, *integer);
  if (const auto* real = std::get_if<double>(&value.value)) return put_real(out, value.kind, *real);
  if (const auto* flag = std::get_if<bool>(&value.value)) return put<uint8_t>(out, *flag ? 1 : 0);
  if (const auto* text = std::get_if<std::string>(&value.value)) return put_text(out, *text);
  put(out, static_cast<uint32_t>(value.element));
  if (const auto* texts = std::get_if<GgufValue::Texts>(&value.value)) {
    put<uint64_t>(out, texts->size());
    for (const std::string& text : *texts) put_text(out, text);
  } else if (const auto* reals = std::get_if<GgufValue::Reals>(&value.value)) {
    put<uint64_t>(out, reals->size());
    for (const double real : *reals) put_real(out, value.element, real);
  } else {
    const auto& integers = std::get<GgufValue::Integers>(value.value);
    put<uint64_t>(out, integers.size());
    for (const int64_t integer : integers) put_integer(out, value.element, integer);
  }
}

template <typename List>
const List* list_of(const GgufHeader& header, const std::string& key, const char* expected) {
  const GgufValue* value = header.find(key);
  if (value == nullptr) return nullptr;
  const auto* list = std::get_if<List>(&value->value);
  if (list == nullptr) throw header.wrong(key, expected);
  return list;
}

}  // namespace

GgufValue gguf_u32(int64_t value) { return {GgufKind::kU32, {}, value}; }
GgufValue gguf_f32(double value) { return {GgufKind::kF32, {}, value}; }
GgufValue gguf_bool(bool value) { return {GgufKind::kBool, {}, value}; }
GgufValue gguf_text(std::string value) { return {GgufKind::kText, {}, std::move(value)}; }
GgufValue gguf_texts(GgufValue::Texts values) { return {GgufKind::kList, GgufKind::kText, std::move(values)}; }
GgufValue gguf_f32s(GgufValue::Reals values) { return {GgufKind::kList, GgufKind::kF32, std::move(values)}; }
GgufValue gguf_i32s(GgufValue::Integers values) { return {GgufKind::kList, GgufKind::kI32, std::move(values)}; }

const GgufValue* GgufHeader::find(const std::string& key) const {
  const auto found = std::ranges::find(metadata, key, &std::pair<std::string, GgufValue>::first);
  return found == metadata.end() ? nullptr : &found->second;
}

const GgufTensor* GgufHeader::find_tensor(const std::string& name) const {
  const auto found = std::ranges::find(tensors, name, &GgufTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

Error GgufHeader::wrong(const std::string& key, const std::string& expected) const {
  const GgufValue* value = find(key);
  return error(Code::kDataLoss, "{}: {}: expected {}, found {}", file, key, expected, value == nullptr ? "nothing" : shown(*value));
}

Error GgufHeader::unsupported(const std::string& key, const std::string& what) const {
  return error(Code::kUnimplemented, "{}: {}: {} is not supported", file, key, what);
}

std::optional<int64_t> GgufHeader::integer(const std::string& key, int64_t min, int64_t max) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* integer = std::get_if<int64_t>(&value->value);
  if (integer == nullptr || *integer < min || *integer > max) throw wrong(key, fmt::format("an integer from {} to {}", min, max));
  return *integer;
}

std::optional<double> GgufHeader::real(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* real = std::get_if<double>(&value->value);
  if (real == nullptr || !std::isfinite(*real)) throw wrong(key, "a finite real number");
  if (value->kind != GgufKind::kF32) return *real;
  return std::strtod(fmt::format("{}", static_cast<float>(*real)).c_str(), nullptr);
}

std::optional<bool> GgufHeader::boolean(const std::string& key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto* flag = std::get_if<bool>(&value->value);
  if (flag == nullptr) throw wrong(key, "true or false");
  return *flag;
}

const std::string* GgufHeader::text(const std::string& key) const { return list_of<std::string>(*this, key, "a text"); }
const GgufValue::Texts* GgufHeader::texts(const std::string& key) const { return list_of<GgufValue::Texts>(*this, key, "a list of texts"); }
const GgufValue::Integers* GgufHeader::integers(const std::string& key) const { return list_of<GgufValue::Integers>(*this, key, "a list of integers"); }
const GgufValue::Reals* GgufHeader::reals(const std::string& key) const { return list_of<GgufValue::Reals>(*this, key, "a list of real numbers"); }

uint64_t gguf_padded(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

uint64_t gguf_bytes(const GgufTensor& tensor) {
  PENSTOCK_CHECK(!tensor.shape.empty() && tensor.shape.back() % block_values(tensor.type) == 0, "tensor '{}'", tensor.name);
  uint64_t bytes = block_bytes(tensor.type) * static_cast<uint64_t>(tensor.shape.back() / block_values(tensor.type));
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) bytes *= static_cast<uint64_t>(tensor.shape[i]);
  return bytes;
}

std::string format_gguf_header(const std::vector<std::pair<std::string, GgufValue>>& metadata, const std::vector<GgufTensor>& tensors) {
  std::string out = "GGUF";
  put<uint32_t>(out, 3);
  put<uint64_t>(out, tensors.size());
  put<uint64_t>(out, metadata.size());
  for (const auto& [key, value] : metadata) {
    put_text(out, key);
    put_value(out, value);
  }
  uint64_t position = 0;
  for (const GgufTensor& tensor : tensors) {
    put_text(out, tensor.name);
    put(out, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) put(out, static_cast<uint64_t>(*size));
    put(out, static_cast<uint32_t>(tensor.type));
    put(out, position);
    position += gguf_padded(gguf_bytes(tensor));
  }
  out.resize(gguf_padded(out.size()), '\0');
  return out;
}

}  // namespace penstock::formats
