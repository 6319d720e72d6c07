#include "base/filesystem_error.h"

namespace penstock {

Error error_of(const std::filesystem::filesystem_error& failure) {
  const auto& path = failure.path2().empty() ? failure.path1() : failure.path2();  // of two the one that is to be, or that stands in the way
  return error(Code::kDataLoss, "cannot change {}: {}", path.string(), failure.code().message());
}

}  // namespace penstock
