#include "fuzz.h"
#include "data/token_shard.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)data::decode_shard_header(fuzz::text_of(data, size), "fuzz.bin");
  });
}
