#include "fuzz.h"
#include "text/generation_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)text::parse_generation_request(fuzz::text_of(data, size));
  });
}
