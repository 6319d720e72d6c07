#include "formats/gguf_file.h"
#include "fuzz.h"
#include "text/chat_template.h"
#include "text/gguf_tokenizer.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  const auto file = fuzz::folder_with("fuzz.gguf", data, size) / "fuzz.gguf";
  (void)fuzz::accept_errors([&] {
    auto tokenizer = text::Tokenizer::load(file);
    if (!tokenizer) return;
    const auto ids = tokenizer->encode("Hello, w\xC3\xB6rld! 123 \xF0\x9F\x98\x80");
    (void)tokenizer->decode(ids);
  });
  (void)fuzz::accept_errors([&] { (void)text::ChatTemplate::load(file); });
  return fuzz::accept_errors([&] { (void)text::tokenizer_files_of_gguf(formats::parse_gguf({reinterpret_cast<const std::byte*>(data), size}, "fuzz.gguf")); });
}
