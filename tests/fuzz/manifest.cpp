#include "frontend/model_spec.h"
#include "fuzz.h"

// A MANIFEST.json of an archive.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    std::filesystem::create_directories(fuzz::folder_with("config.json", data, 0) / "MAR-INF");
    const std::filesystem::path& folder = fuzz::folder_with("MAR-INF/MANIFEST.json", data, size);
    auto spec = frontend::read_model_spec({"", "fuzz.mar", folder, folder}, {});
    if (!spec) return;
    PENSTOCK_CHECK(spec->name.find('/') == std::string::npos && spec->version.find('/') == std::string::npos, "{}:{}", spec->name, spec->version);
  });
}
