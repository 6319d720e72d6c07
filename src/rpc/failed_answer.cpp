#include "rpc/failed_answer.h"

namespace penstock::rpc {

std::optional<Error> FailedAnswer::failure() const {
  if (status_ == 0) return std::nullopt;
  return error(code_of_http_status(status_), "{}", text_.empty() ? fmt::format("the handler answered with status {}", status_) : text_);
}

Code code_of_http_status(int status) {
  switch (status) {
    case 400: return Code::kInvalidArgument;
    case 401:
    case 403: return Code::kPermissionDenied;
    case 404: return Code::kNotFound;
    case 409: return Code::kAlreadyExists;
    case 413:
    case 429: return Code::kResourceExhausted;
    case 416: return Code::kInvalidArgument;
    case 499: return Code::kCancelled;
    case 501: return Code::kUnimplemented;
    case 503: return Code::kUnavailable;
    case 504: return Code::kDeadlineExceeded;
    default: return status >= 400 && status < 500 ? Code::kFailedPrecondition : Code::kInternal;
  }
}

}  // namespace penstock::rpc
