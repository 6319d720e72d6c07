#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "base/utf8.h"
#include "formats/gguf_file.h"

namespace penstock::formats {
namespace {

constexpr uint64_t kMaxKeyBytes = 65535;  // as the format says
constexpr uint64_t kMaxNameBytes = 1024;
constexpr uint64_t kMaxDims = 4;
constexpr int64_t kMaxAlignment = 1 << 20;
// The least that an entry takes: a count beyond what is left of the file is nonsense, and makes us allocate nothing.
constexpr uint64_t kLeastMetadata = 8 + 4 + 1, kLeastTensor = 8 + 4 + 8 + 4 + 8;

static_assert(std::endian::native == std::endian::little, "values are copied as the file has them");

// One value after another. Every complaint names the file and what was being read.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  void now(std::string what) { what_ = std::move(what); }
  [[nodiscard]] size_t position() const { return at_; }
  [[nodiscard]] uint64_t left() const { return bytes_.size() - at_; }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string text(uint64_t limit) {
    const auto size = number<uint64_t>();
    if (size > limit) throw broken(fmt::format("a text of {} bytes; expected at most {}", size, limit));
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  uint64_t count(uint64_t least_bytes, const char* of) {
    const auto value = number<uint64_t>();
    if (value > left() / least_bytes) throw broken(fmt::format("{} {}, but only {} bytes follow; is the file truncated?", value, of, left()));
    return value;
  }

  [[nodiscard]] Error broken(const std::string& what) const { return error(Code::kDataLoss, "{}: {}: {}", file_, what_, what); }
  [[nodiscard]] const std::string& file() const { return file_; }

 private:
  std::span<const std::byte> take(uint64_t size) {
    if (size > left()) throw broken(fmt::format("it takes {} bytes, but the file has {} more: it is truncated; copy or download it again", size, left()));
    const auto taken = bytes_.subspan(at_, size);
    at_ += size;
    return taken;
  }

  std::span<const std::byte> bytes_;
  const std::string& file_;
  std::string what_ = "the start";
  size_t at_ = 0;
};

using Scalar = decltype(GgufValue::value);

Scalar read_scalar(Reader& reader, GgufKind kind) {
  switch (kind) {
    case GgufKind::kU8: return int64_t{reader.number<uint8_t>()};
    case GgufKind::kI8: return int64_t{reader.number<int8_t>()};
    case GgufKind::kU16: return int64_t{reader.number<uint16_t>()};
    case GgufKind::kI16: return int64_t{reader.number<int16_t>()};
    case GgufKind::kU32: return int64_t{reader.number<uint32_t>()};
    case GgufKind::kI32: return int64_t{reader.number<int32_t>()};
    case GgufKind::kI64: return reader.number<int64_t>();
    case GgufKind::kF32: return double{reader.number<float>()};
    case GgufKind::kF64: return reader.number<double>();
    case GgufKind::kText: return reader.text(reader.left());
    case GgufKind::kU64: {
      const auto value = reader.number<uint64_t>();
      if (value > static_cast<uint64_t>(INT64_MAX)) return value;
      return static_cast<int64_t>(value);
    }
    case GgufKind::kBool: {
      const auto value = reader.number<uint8_t>();
      if (value > 1) throw reader.broken(fmt::format("expected true (1) or false (0), found {}", value));
      return value == 1;
    }
    case GgufKind::kList: break;
  }
  throw reader.broken("a list where one value is expected");
}

GgufKind read_kind(Reader& reader) {
  const auto number = reader.number<uint32_t>();
  if (number > static_cast<uint32_t>(GgufKind::kF64)) throw reader.broken(fmt::format("value type {}; expected 0 to 12", number));
  return static_cast<GgufKind>(number);
}

uint64_t least_bytes(GgufKind kind) {
  switch (kind) {
    case GgufKind::kU8: case GgufKind::kI8: case GgufKind::kBool: return 1;
    case GgufKind::kU16: case GgufKind::kI16: return 2;
    case GgufKind::kU32: case GgufKind::kI32: case GgufKind::kF32: return 4;
    default: return 8;
  }
}

Scalar read_list(Reader& reader, GgufKind element) {
  if (element == GgufKind::kList) throw error(Code::kUnimplemented, "{}: lists of lists are not supported", reader.broken("a list").message());
  const uint64_t count = reader.count(least_bytes(element), "values");
  GgufValue::Texts texts;
  GgufValue::Integers integers;
  GgufValue::Reals reals;
  for (uint64_t i = 0; i < count; ++i) {
    Scalar value = read_scalar(reader, element);
    if (auto* text = std::get_if<std::string>(&value)) texts.push_back(std::move(*text));
    else if (const auto* real = std::get_if<double>(&value)) reals.push_back(*real);
    else if (const auto* flag = std::get_if<bool>(&value)) integers.push_back(*flag ? 1 : 0);
    else if (const auto* integer = std::get_if<int64_t>(&value)) integers.push_back(*integer);
    else throw reader.broken("a number beyond 63 bits in a list");
  }
  if (element == GgufKind::kText) return texts;
  if (element == GgufKind::kF32 || element == GgufKind::kF64) return reals;
  return integers;
}

GgufValue read_value(Reader& reader) {
  GgufValue value;
  value.kind = read_kind(reader);
  if (value.kind != GgufKind::kList) {
    value.value = read_scalar(reader, value.kind);
    return value;
  }
  value.element = read_kind(reader);
  value.value = read_list(reader, value.element);
  return value;
}

void read_start(Reader& reader) {
  const auto magic = reader.number<uint32_t>();
  if (magic != 0x46554747) throw error(Code::kDataLoss, "{}: it does not start with \"GGUF\": it is no GGUF file", reader.file());
  const auto version = reader.number<uint32_t>();
  if ((version & 0xFFFF) == 0) throw error(Code::kUnimplemented, "{}: a big-endian GGUF file is not supported", reader.file());
  if (version != 2 && version != 3) throw error(Code::kUnimplemented, "{}: GGUF version {} is not supported; expected 2 or 3", reader.file(), version);
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Fills all but the place: `begin` counts from the first data byte.
GgufTensor read_tensor(Reader& reader) {
  GgufTensor tensor;
  tensor.name = reader.text(kMaxNameBytes);
  if (tensor.name.empty() || find_invalid_utf8(tensor.name) != std::string_view::npos) throw reader.broken("a tensor's name is empty or no UTF-8");
  reader.now(fmt::format("tensor '{}'", tensor.name));
  const auto dims = reader.number<uint32_t>();
  if (dims == 0 || dims > kMaxDims) throw reader.broken(fmt::format("{} dims; expected 1 to {}", dims, kMaxDims));
  for (uint32_t i = 0; i < dims; ++i) {
    const auto size = reader.number<uint64_t>();
    if (size == 0 || size > static_cast<uint64_t>(INT64_MAX)) throw reader.broken(fmt::format("a dim of size {}", size));
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  const auto number = reader.number<uint32_t>();
  const auto type = ggml_type(number);
  if (!type) {
    throw error(Code::kUnimplemented, "{}: tensor '{}' has type {}; this version reads {}", reader.file(), tensor.name, ggml_type_name(number), known_ggml_types());
  }
  tensor.type = *type;
  tensor.begin = reader.number<uint64_t>();
  return tensor;
}

// Moves the tensor to its place in the file.
void place(GgufTensor& tensor, uint64_t data_begin, uint64_t data_bytes, uint64_t alignment, const std::string& file) {
  const auto fail = [&](const std::string& what) { return error(Code::kDataLoss, "{}: tensor '{}': {}", file, tensor.name, what); };
  const int64_t block = block_values(tensor.type);
  if (tensor.shape.back() % block != 0) {
    throw fail(fmt::format("{} {} has rows that are no multiple of {} values", ggml_type_name(tensor.type), shape_text(tensor.shape), block));
  }
  uint64_t bytes = block_bytes(tensor.type);
  bool overflow = __builtin_mul_overflow(bytes, static_cast<uint64_t>(tensor.shape.back() / block), &bytes);
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(tensor.shape[i]), &bytes);
  if (overflow || bytes > static_cast<uint64_t>(INT64_MAX)) throw fail(fmt::format("the impossible shape {}", shape_text(tensor.shape)));
  if (tensor.begin % alignment != 0) throw fail(fmt::format("it begins at data byte {}; expected a multiple of {}", tensor.begin, alignment));
  if (tensor.begin > data_bytes || bytes > data_bytes - tensor.begin) {
    throw fail(fmt::format("{} {} takes {} bytes from data byte {} on, but the file holds {}: it is truncated; copy or download it again",
                           ggml_type_name(tensor.type), shape_text(tensor.shape), bytes, tensor.begin, data_bytes));
  }
  tensor.begin += data_begin;
  tensor.end = tensor.begin + bytes;
}

void check_apart(const std::vector<GgufTensor>& tensors, const std::string& file) {
  std::vector<const GgufTensor*> sorted;
  for (const GgufTensor& tensor : tensors) sorted.push_back(&tensor);
  std::ranges::sort(sorted, {}, [](const GgufTensor* t) { return t->begin; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i]->begin >= sorted[i - 1]->end) continue;
    throw error(Code::kDataLoss, "{}: tensors '{}' and '{}' overlap", file, sorted[i - 1]->name, sorted[i]->name);
  }
}

}  // namespace

GgufHeader parse_gguf(std::span<const std::byte> bytes, const std::string& file) {
  GgufHeader header;
  header.file = file;
  Reader reader(bytes, file);
  read_start(reader);
  const uint64_t num_tensors = reader.count(kLeastTensor, "tensors");
  const uint64_t num_metadata = reader.count(kLeastMetadata, "keys of metadata");
  std::unordered_set<std::string> seen;
  for (uint64_t i = 0; i < num_metadata; ++i) {
    reader.now(fmt::format("key {} of the metadata", i));
    std::string key = reader.text(kMaxKeyBytes);
    if (key.empty() || find_invalid_utf8(key) != std::string_view::npos) throw reader.broken("it is empty or no UTF-8");
    if (!seen.insert(key).second) throw reader.broken(fmt::format("'{}' is given twice", key));
    reader.now(key);
    header.metadata.emplace_back(std::move(key), read_value(reader));
  }
  seen.clear();
  for (uint64_t i = 0; i < num_tensors; ++i) {
    reader.now(fmt::format("tensor {}", i));
    header.tensors.push_back(read_tensor(reader));
    if (!seen.insert(header.tensors.back().name).second) throw reader.broken("it is listed twice");
  }
  if (const auto alignment = header.integer("general.alignment", 1, kMaxAlignment)) header.alignment = static_cast<uint64_t>(*alignment);
  if (!std::has_single_bit(header.alignment)) throw header.wrong("general.alignment", "a power of two");
  const uint64_t data_begin = (reader.position() + header.alignment - 1) / header.alignment * header.alignment;
  const uint64_t data_bytes = bytes.size() > data_begin ? bytes.size() - data_begin : 0;
  for (GgufTensor& tensor : header.tensors) place(tensor, data_begin, data_bytes, header.alignment, file);
  check_apart(header.tensors, file);
  return header;
}

}  // namespace penstock::formats
