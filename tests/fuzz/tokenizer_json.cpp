#include "fuzz.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    auto tokenizer = text::Tokenizer::load(fuzz::folder_with("tokenizer.json", data, size));
    if (!tokenizer) return;
    const auto ids = tokenizer->encode("Hello, w\xC3\xB6rld! 123 \xF0\x9F\x98\x80");
    (void)tokenizer->decode(ids);
  });
}
