#include "fuzz.h"
#include "config/train_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)config::parse_train_config(fuzz::text_of(data, size), "fuzz.yaml");
  });
}
