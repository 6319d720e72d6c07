#include "fuzz.h"
#include "rpc/http_router.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    static const rpc::HttpRouter router("fuzz", {{"*", "/predictions/{model_name}", "", {}, {}}, {"GET", "/models/{model_name}/{model_version}", "", {}, {}}});
    const auto text = fuzz::text_of(data, size);
    const size_t space = std::min(text.find(" "), text.size());
    (void)router.lock(std::string(text.substr(0, space)), std::string(text.substr(std::min(text.size(), space + 1))));
    (void)rpc::decode_query(text);
  });
}
