#include "frontend/archive.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  return fuzz::accept_errors([&] {
    const std::filesystem::path& folder = fuzz::folder_with("model.mar", data, size);
    frontend::ArchiveLimits limits;
    limits.bytes = 1 << 20;
    limits.entries = 100;
    const auto refused = frontend::unpack_archive(folder / "model.mar", folder / "unpacked", limits);
    PENSTOCK_CHECK(!refused == std::filesystem::exists(folder / "unpacked"), "a refused archive leaves nothing");
    std::filesystem::remove_all(folder / "unpacked");
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      PENSTOCK_CHECK(entry.path().filename() == "model.mar", "{} is outside of the archive's folder", entry.path().string());
    }
  });
}
