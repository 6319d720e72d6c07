#include <cstdlib>
#include <vector>

#include "formats/ggml_types.h"
#include "fuzz.h"

// The first byte is a type's number, the rest blocks of it: whatever their bits, each gives its values and nothing is read or written beyond them.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  if (size == 0) return 0;
  const auto type = formats::ggml_type(data[0]);
  if (!type) return 0;
  const size_t blocks = (size - 1) / formats::block_bytes(*type);
  const std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 1, reinterpret_cast<const std::byte*>(data) + 1 + blocks * formats::block_bytes(*type));
  std::vector<float> values(blocks * static_cast<size_t>(formats::block_values(*type)), 0.0f);
  formats::dequantize(*type, bytes, values);
  return 0;
}
