#include "fuzz.h"
#include "text/openai_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)text::parse_completion_request(fuzz::text_of(data, size));
    (void)text::parse_chat_request(fuzz::text_of(data, size));
  });
}
