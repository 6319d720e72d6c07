#pragma once
// The header of a safetensors file: which tensors it holds, of which dtype and shape, and where their bytes are.
// Format: 8 bytes little-endian header length, that many bytes of JSON, then the tensors' bytes without gaps
// (https://github.com/huggingface/safetensors#format). Nothing in it is trusted.
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace penstock::formats {

struct TensorEntry {
  std::string name;
  std::string dtype;           // as the file spells it, e.g. "BF16"
  std::vector<int64_t> shape;  // every size >= 0; the product times the element's bytes equals end - begin
  uint64_t begin = 0;          // bytes from the start of the file, of the first byte and past the last
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // by position in the file
  std::map<std::string, std::string> metadata;
};

inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;  // the limit of the format's own reader

// Bytes of one element, 0 for a dtype that the format does not know.
[[nodiscard]] uint64_t safetensors_element_bytes(const std::string& dtype);

// REQUIRES: `bytes` is the whole file. Checks everything that TensorEntry promises, and that the tensors fill the file without
// gap or overlap. Throws Error kDataLoss naming `file`, the tensor, what was expected and found.
[[nodiscard]] SafetensorsHeader parse_safetensors_header(std::span<const std::byte> bytes, const std::string& file);

// The first bytes of a file that holds these tensors one after the other (`begin` and `end` are ignored: sizes follow from dtype
// and shape): length and JSON, padded with spaces so that the tensors start at a multiple of 8. Same input, same bytes.
[[nodiscard]] std::string format_safetensors_header(const std::vector<TensorEntry>& tensors,
                                                    const std::map<std::string, std::string>& metadata);

}  // namespace penstock::formats
