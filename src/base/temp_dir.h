#pragma once
// A folder of its own under the system's temporary folder, removed with all it holds by the destructor.
#include <filesystem>

namespace penstock {

class TempDir {
 public:
  // Throws Error kDataLoss when no folder can be made.
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace penstock
