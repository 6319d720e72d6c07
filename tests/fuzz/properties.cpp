#include "fuzz.h"
#include "config/properties_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)config::parse_properties(fuzz::text_of(data, size), "fuzz.properties");
  });
}
