#include "fuzz.h"
#include "text/sentencepiece_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)text::parse_sentencepiece(fuzz::text_of(data, size), "fuzz.model");
  });
}
