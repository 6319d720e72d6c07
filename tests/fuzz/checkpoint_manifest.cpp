#include "fuzz.h"
#include "formats/checkpoint_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    (void)formats::read_manifest(fuzz::folder_with("manifest.json", data, size));
  });
}
