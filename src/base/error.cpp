#include "base/error.h"

namespace penstock {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::kInvalidArgument: return "invalid argument";
    case Code::kNotFound: return "not found";
    case Code::kAlreadyExists: return "already exists";
    case Code::kPermissionDenied: return "permission denied";
    case Code::kFailedPrecondition: return "failed precondition";
    case Code::kResourceExhausted: return "resource exhausted";
    case Code::kUnavailable: return "unavailable";
    case Code::kDeadlineExceeded: return "deadline exceeded";
    case Code::kCancelled: return "cancelled";
    case Code::kDataLoss: return "data loss";
    case Code::kUnimplemented: return "unimplemented";
    case Code::kInternal: return "internal";
  }
  return "unknown";
}

namespace detail {
void check_failed(const char* expression, const char* file, int line, const std::string& detail) {
  throw Bug(fmt::format("{}:{}: check failed: {}: {}", file, line, expression, detail));
}
}  // namespace detail

}  // namespace penstock
