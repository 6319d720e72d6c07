#include "base/temp_dir.h"

#include <cstdlib>
#include <string>

#include "base/error.h"

namespace penstock {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "penstock.XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw error(Code::kDataLoss, "cannot make a temporary folder {}", pattern);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;  // a destructor does not throw; what is left over lies in the temporary folder
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace penstock
