#include "fuzz.h"
#include "text/end_tokens.h"
#include "text/sampling_defaults.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  const auto& folder = fuzz::folder_with("generation_config.json", data, size);
  return fuzz::accept_errors([&] {
    (void)text::read_sampling_defaults(folder);
    (void)text::end_ids_of_folder(folder);
  });
}
