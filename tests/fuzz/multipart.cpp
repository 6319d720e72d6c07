#include "fuzz.h"
#include "rpc/http_forms.h"

// A line of content type, then the body.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    const auto [type, body] = fuzz::first_line(fuzz::text_of(data, size));
    const auto parts = rpc::body_parts(type, std::string(body));
    if (!parts) return;
    size_t bytes = 0;
    for (const handler::Part& part : parts.value()) bytes += part.name.size() + part.bytes.size();
    PENSTOCK_CHECK(bytes <= 4 + body.size(), "{} bytes in parts of a body of {}", bytes, body.size());
  });
}
