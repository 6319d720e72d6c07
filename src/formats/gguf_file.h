#pragma once
// GGUF: llama.cpp's model files. Metadata by key, tensors by name, then their bytes
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Nothing in a file is trusted.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "formats/ggml_types.h"

namespace penstock::formats {

// Numbers are those of the format.
enum class GgufKind : uint32_t {
  kU8 = 0, kI8 = 1, kU16 = 2, kI16 = 3, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kText = 8, kList = 9, kU64 = 10, kI64 = 11, kF64 = 12
};

struct GgufValue {
  using Texts = std::vector<std::string>;
  using Integers = std::vector<int64_t>;
  using Reals = std::vector<double>;
  GgufKind kind = GgufKind::kU32;     // of a list: kList
  GgufKind element = GgufKind::kU32;  // of a list's elements
  // Every integer as int64_t (a u64 beyond it as uint64_t), reals as double, booleans as bool; in lists booleans are integers.
  std::variant<int64_t, uint64_t, double, bool, std::string, Integers, Reals, Texts> value = int64_t{0};
};

[[nodiscard]] GgufValue gguf_u32(int64_t value);
[[nodiscard]] GgufValue gguf_f32(double value);
[[nodiscard]] GgufValue gguf_bool(bool value);
[[nodiscard]] GgufValue gguf_text(std::string value);
[[nodiscard]] GgufValue gguf_texts(GgufValue::Texts values);
[[nodiscard]] GgufValue gguf_f32s(GgufValue::Reals values);
[[nodiscard]] GgufValue gguf_i32s(GgufValue::Integers values);

struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<int64_t> shape;  // rows first, as in safetensors (the file has them reversed); 1 ... 4 dims, every size >= 1
  uint64_t begin = 0;          // bytes from the start of the file, of the first byte and past the last
  uint64_t end = 0;
};

struct GgufHeader {
  std::string file;            // for messages
  uint64_t alignment = 32;     // of every tensor's begin
  std::vector<std::pair<std::string, GgufValue>> metadata;  // in the file's order, keys unique
  std::vector<GgufTensor> tensors;                          // in the file's order, names unique

  // nullptr when there is no such key.
  [[nodiscard]] const GgufValue* find(const std::string& key) const;
  [[nodiscard]] const GgufTensor* find_tensor(const std::string& name) const;

  // Values that have to be of this kind. Throw Error kDataLoss "FILE: KEY: expected ..., found ..." for another one.
  [[nodiscard]] std::optional<int64_t> integer(const std::string& key, int64_t min, int64_t max) const;
  [[nodiscard]] std::optional<double> real(const std::string& key) const;  // finite; a float32 as the shortest decimal number that is it
  [[nodiscard]] std::optional<bool> boolean(const std::string& key) const;
  [[nodiscard]] const std::string* text(const std::string& key) const;          // nullptr when absent, as the lists
  [[nodiscard]] const GgufValue::Texts* texts(const std::string& key) const;
  [[nodiscard]] const GgufValue::Integers* integers(const std::string& key) const;
  [[nodiscard]] const GgufValue::Reals* reals(const std::string& key) const;

  [[nodiscard]] Error wrong(const std::string& key, const std::string& expected) const;  // shows what was found
  [[nodiscard]] Error unsupported(const std::string& key, const std::string& what) const;  // kUnimplemented
};

// REQUIRES: `bytes` is the whole file. Versions 2 and 3, little-endian. Checks all that GgufTensor promises, and that tensors lie within the file
// and do not overlap. Throws Error kDataLoss naming `file`, the key or tensor, what was expected and found; kUnimplemented for a version or tensor
// type that we do not read.
[[nodiscard]] GgufHeader parse_gguf(std::span<const std::byte> bytes, const std::string& file);

// The first bytes of a file (version 3) with this metadata and these tensors one after the other (`begin` and `end` are ignored), padded so that
// the tensors follow at once; each takes gguf_padded() bytes. Same input, same bytes.
[[nodiscard]] std::string format_gguf_header(const std::vector<std::pair<std::string, GgufValue>>& metadata, const std::vector<GgufTensor>& tensors);
// Bytes of a tensor's values, and with the padding behind it. REQUIRES: whole blocks in a row.
[[nodiscard]] uint64_t gguf_bytes(const GgufTensor& tensor);
[[nodiscard]] uint64_t gguf_padded(uint64_t bytes);

}  // namespace penstock::formats
