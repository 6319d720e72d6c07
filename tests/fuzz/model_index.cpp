#include "formats/weight_index.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] { (void)formats::parse_weight_index(fuzz::text_of(data, size), "fuzz.json"); });
}
