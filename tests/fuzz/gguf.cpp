#include "formats/gguf_config.h"
#include "formats/gguf_file.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    const auto header = formats::parse_gguf({reinterpret_cast<const std::byte*>(data), size}, "fuzz.gguf");
    (void)formats::config_of_gguf(header, {});
  });
}
