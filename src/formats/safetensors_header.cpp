#include "formats/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "base/error.h"

namespace penstock::formats {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxDims = 16;
constexpr size_t kMaxNameBytes = 1024;

template <typename... Args>
[[noreturn]] void fail(const std::string& file, fmt::format_string<Args...> format, Args&&... args) {
  throw error(Code::kDataLoss, "{}: {}", file, fmt::format(format, std::forward<Args>(args)...));
}

// Reads the header's JSON as a stream of events. No document tree is built: a repeated name would vanish in one, and nesting is
// bounded by the states below, so a hostile header costs no stack and no more memory than the entries it describes.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& file) : file_(file) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool start_object(size_t /*size*/) override {
    if (state_ == State::kStart) return enter(State::kTop);
    if (state_ == State::kTopValue) {
      if (key_ == "__metadata__") return enter(State::kMetadata);
      entry_ = TensorEntry{.name = key_, .dtype = {}, .shape = {}};
      seen_dtype_ = seen_shape_ = false;
      num_offsets_.reset();
      return enter(State::kTensor);
    }
    return unexpected("an object");
  }

  bool end_object() override {
    switch (state_) {
      case State::kTop: return enter(State::kEnd);
      case State::kMetadata: return enter(State::kTop);
      case State::kTensor: return finish_tensor();
      default: return unexpected("the end of an object");
    }
  }

  bool key(string_t& key) override {
    switch (state_) {
      case State::kTop:
        if (key.size() > kMaxNameBytes) fail(file_, "a tensor's name has {} bytes; expected at most {}", key.size(), kMaxNameBytes);
        if (!names_.insert(key).second) fail(file_, "tensor '{}' is listed twice", key);
        key_ = key;
        return enter(State::kTopValue);
      case State::kMetadata:
        key_ = key;
        return enter(State::kMetadataValue);
      case State::kTensor:
        if (key == "dtype" && !seen_dtype_) return enter(State::kDtype);
        if (key == "shape" && !seen_shape_) return enter(State::kShape);
        if (key == "data_offsets" && !num_offsets_) return enter(State::kOffsets);
        fail(file_, "tensor '{}' has the field '{}'; expected dtype, shape and data_offsets, once each", entry_.name, key);
      default: return unexpected("a key");
    }
  }

  bool string(string_t& text) override {
    if (state_ == State::kMetadataValue) {
      header_.metadata[key_] = text;
      return enter(State::kMetadata);
    }
    if (state_ != State::kDtype) return unexpected("a string");
    entry_.dtype = text;
    seen_dtype_ = true;
    return enter(State::kTensor);
  }

  bool start_array(size_t /*size*/) override {
    if (state_ == State::kShape) {
      seen_shape_ = true;
      return enter(State::kShapeItems);
    }
    if (state_ != State::kOffsets) return unexpected("an array");
    num_offsets_ = 0;
    return enter(State::kOffsetItems);
  }

  bool end_array() override {
    if (state_ == State::kOffsetItems && num_offsets_ != 2) {
      fail(file_, "tensor '{}' has {} data_offsets; expected 2", entry_.name, *num_offsets_);
    }
    if (state_ != State::kShapeItems && state_ != State::kOffsetItems) return unexpected("the end of an array");
    return enter(State::kTensor);
  }

  bool number_unsigned(number_unsigned_t number) override {
    if (state_ == State::kShapeItems) {
      if (entry_.shape.size() == kMaxDims) fail(file_, "tensor '{}' has more than {} dims", entry_.name, kMaxDims);
      if (number > static_cast<uint64_t>(INT64_MAX)) fail(file_, "tensor '{}' has a dim of size {}", entry_.name, number);
      entry_.shape.push_back(static_cast<int64_t>(number));
      return true;
    }
    if (state_ != State::kOffsetItems) return unexpected("a number");
    if (*num_offsets_ == 0) entry_.begin = number;
    if (*num_offsets_ == 1) entry_.end = number;
    ++*num_offsets_;
    return true;
  }

  bool null() override { return unexpected("null"); }
  bool boolean(bool /*value*/) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { return unexpected(fmt::format("the number {}", value)); }
  bool number_float(number_float_t /*value*/, const string_t& text) override { return unexpected("the number " + text); }
  bool binary(binary_t& /*bytes*/) override { return unexpected("binary data"); }
  bool parse_error(size_t position, const std::string& /*token*/, const nlohmann::json::exception& /*cause*/) override {
    fail(file_, "its header is not JSON: error at byte {} of the header", position);
  }

 private:
  enum class State { kStart, kTop, kTopValue, kMetadata, kMetadataValue, kTensor, kDtype, kShape, kShapeItems, kOffsets, kOffsetItems, kEnd };

  bool enter(State state) {
    state_ = state;
    return true;
  }

  [[noreturn]] bool unexpected(const std::string& found) const {
    if (state_ == State::kStart) fail(file_, "its header starts with {}; expected an object", found);
    fail(file_, "its header holds {} under '{}' where none belongs", found, key_);
  }

  bool finish_tensor() {
    if (!seen_dtype_ || !seen_shape_ || !num_offsets_) {
      fail(file_, "tensor '{}' lacks its {}", entry_.name, !seen_dtype_ ? "dtype" : !seen_shape_ ? "shape" : "data_offsets");
    }
    header_.tensors.push_back(std::move(entry_));
    return enter(State::kTop);
  }

  const std::string& file_;
  State state_ = State::kStart;
  std::string key_;
  TensorEntry entry_;
  bool seen_dtype_ = false;
  bool seen_shape_ = false;
  std::optional<int> num_offsets_;
  std::unordered_set<std::string> names_;
  SafetensorsHeader header_;
};

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// nullopt on overflow.
std::optional<uint64_t> tensor_bytes(const TensorEntry& tensor) {
  uint64_t bytes = safetensors_element_bytes(tensor.dtype);
  bool overflow = false;
  for (const int64_t size : tensor.shape) {
    if (size == 0) return 0;
    overflow = overflow || __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes);
  }
  if (overflow || bytes > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return bytes;
}

// `begin` and `end` still count from the first data byte.
void check_tensor(const TensorEntry& tensor, uint64_t data_bytes, const std::string& file) {
  if (safetensors_element_bytes(tensor.dtype) == 0) fail(file, "tensor '{}' has the unknown dtype '{}'", tensor.name, tensor.dtype);
  const std::optional<uint64_t> expected = tensor_bytes(tensor);
  if (!expected) fail(file, "tensor '{}' has the impossible shape {}", tensor.name, shape_text(tensor.shape));
  if (tensor.begin > tensor.end) {
    fail(file, "tensor '{}' ends at byte {}, before its begin at {}", tensor.name, tensor.end, tensor.begin);
  }
  if (tensor.end - tensor.begin != *expected) {
    fail(file, "tensor '{}' of {} {} takes {} bytes; its data_offsets give it {}", tensor.name, tensor.dtype, shape_text(tensor.shape),
         *expected, tensor.end - tensor.begin);
  }
  if (tensor.end > data_bytes) {
    fail(file, "tensor '{}' ends at data byte {}, but the file holds {}: it is truncated; copy or download it again", tensor.name,
         tensor.end, data_bytes);
  }
}

void check_positions(const std::vector<TensorEntry>& sorted, uint64_t data_bytes, const std::string& file) {
  uint64_t position = 0;
  for (const TensorEntry& tensor : sorted) {
    if (tensor.begin != position) {
      fail(file, "tensor '{}' begins at data byte {}; expected {}, where the tensor before it ends", tensor.name, tensor.begin, position);
    }
    position = tensor.end;
  }
  if (position != data_bytes) {
    fail(file, "its tensors end at data byte {}, but the file holds {}: it has bytes that belong to no tensor", position, data_bytes);
  }
}

}  // namespace

uint64_t safetensors_element_bytes(const std::string& dtype) {
  static constexpr std::pair<std::string_view, uint64_t> kBytes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},   {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I16", 2}, {"U16", 2},
      {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4},     {"F32", 4},     {"I64", 8}, {"U64", 8}, {"F64", 8},
  };
  for (const auto& [name, bytes] : kBytes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < kLengthBytes) fail(file, "it has {} bytes; a safetensors file has at least {}", bytes.size(), kLengthBytes);
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) header_bytes |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  if (header_bytes > kMaxSafetensorsHeaderBytes) {
    fail(file, "its header claims {} bytes; expected at most {}: is it a safetensors file?", header_bytes, kMaxSafetensorsHeaderBytes);
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    fail(file, "its header claims {} bytes, but the file holds {} after the length: it is truncated; copy or download it again",
         header_bytes, bytes.size() - kLengthBytes);
  }
  const std::string_view json(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, header_bytes);
  HeaderReader reader(file);
  nlohmann::json::sax_parse(json, &reader);
  SafetensorsHeader header = reader.take();

  const uint64_t data_begin = kLengthBytes + header_bytes;
  const uint64_t data_bytes = bytes.size() - data_begin;
  for (const TensorEntry& tensor : header.tensors) check_tensor(tensor, data_bytes, file);
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_positions(header.tensors, data_bytes, file);
  for (TensorEntry& tensor : header.tensors) {
    tensor.begin += data_begin;
    tensor.end += data_begin;
  }
  return header;
}

std::string format_safetensors_header(const std::vector<TensorEntry>& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  uint64_t position = 0;
  for (const TensorEntry& tensor : tensors) {
    const std::optional<uint64_t> bytes = tensor_bytes(tensor);
    PENSTOCK_CHECK(bytes && safetensors_element_bytes(tensor.dtype) != 0, "tensor '{}', dtype '{}'", tensor.name, tensor.dtype);
    PENSTOCK_CHECK(!json.contains(tensor.name), "tensor '{}' is given twice", tensor.name);
    json[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {position, position + *bytes}}};
    position += *bytes;
  }
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string header(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) header[i] = static_cast<char>((text.size() >> (8 * i)) & 0xff);
  return header + text;
}

}  // namespace penstock::formats
