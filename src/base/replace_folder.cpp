#include "base/replace_folder.h"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace penstock {

void replace_folder(const std::filesystem::path& from, const std::filesystem::path& to) {
  const std::filesystem::path above = to.has_parent_path() ? to.parent_path() : ".";
  std::error_code ignored;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    sync_path(above);
    std::filesystem::remove_all(from, ignored);  // now what was there before
    return;
  }
  std::filesystem::remove_all(to, ignored);  // nothing, mostly; or names cannot be exchanged here
  if (::rename(from.c_str(), to.c_str()) != 0) throw error(Code::kDataLoss, "cannot rename into {}: {}", to.string(), std::strerror(errno));
  sync_path(above);
}

}  // namespace penstock
