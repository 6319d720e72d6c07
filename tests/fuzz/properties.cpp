#include "fuzz.h"
#include "config/properties_reader.h"
#include "config/server_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)config::parse_properties(fuzz::text_of(data, size), "fuzz.properties");
    (void)config::load_server_config(fuzz::folder_with("config.properties", data, size) / "config.properties");
  });
}
