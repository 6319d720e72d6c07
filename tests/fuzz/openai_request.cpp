#include "fuzz.h"
#include "text/openai_tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)text::parse_completion_request(fuzz::text_of(data, size));
    (void)text::parse_chat_request(fuzz::text_of(data, size));
    (void)text::parse_tokenize_request(fuzz::text_of(data, size));
    (void)text::parse_detokenize_request(fuzz::text_of(data, size));
    (void)text::model_named_in(fuzz::text_of(data, size));
  });
}
