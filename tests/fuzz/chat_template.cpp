#include "fuzz.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    auto parsed = text::ChatTemplate::parse(fuzz::text_of(data, size), {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
    if (!parsed) return;
    const std::vector<text::ChatMessage> messages = {{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}};
    (void)parsed->render(messages, {.add_generation_prompt = true});
  });
}
