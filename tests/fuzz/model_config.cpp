#include "config/foreign_config.h"
#include "config/model_config.h"
#include "fuzz.h"

// A model-config.yaml of a model of ours, and of a Python handler.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    const std::filesystem::path& folder = fuzz::folder_with("model-config.yaml", data, size);
    (void)config::load_model_config(folder / "model-config.yaml");
    (void)config::load_foreign_model_config(folder, folder / "model-config.yaml");
  });
}
