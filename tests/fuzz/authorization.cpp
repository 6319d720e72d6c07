#include "frontend/access_keys.h"
#include "fuzz.h"

// No bytes that anybody makes up open a door.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  static frontend::AccessKeys keys({.file = "/dev/shm/no-key-file", .lifetime = std::chrono::hours(24), .failures_per_minute = 0, .now = &Clock::now});
  return fuzz::accept_errors([&] {
    const std::string_view header = fuzz::text_of(data, size);
    const auto token = frontend::bearer_token(header);
    PENSTOCK_CHECK(!token || header.find(*token) != std::string_view::npos, "the token is a part of the header");
    for (const frontend::KeySet accepted : {frontend::kManagementKey, frontend::kInferenceKey, frontend::kApiKey}) {
      PENSTOCK_CHECK(keys.check(accepted, header, "peer").has_value(), "opened by {} bytes", size);
    }
  });
}
