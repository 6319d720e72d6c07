#include "fuzz.h"
#include "config/models_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)config::parse_models(fuzz::text_of(data, size));
    (void)config::parse_snapshot(fuzz::text_of(data, size));
  });
}
