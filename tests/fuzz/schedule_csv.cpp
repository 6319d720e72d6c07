#include "fuzz.h"
#include "plan/schedule_csv.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)plan::parse_csv(fuzz::text_of(data, size), "fuzz.csv");
  });
}
