#include "fuzz.h"
#include "formats/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)formats::parse_safetensors_header({reinterpret_cast<const std::byte*>(data), size}, "fuzz.safetensors");
  });
}
