#pragma once
// An answer of bytes whose status is an HTTP error, as gRPC tells it: the call's status, with the bytes as its message. Internal to rpc/.
#include <algorithm>
#include <optional>
#include <string>

#include "base/error.h"
#include "frontend/worker_client.h"

namespace penstock::rpc {

// Threads: one at a time.
class FailedAnswer {
 public:
  // true: the event belongs to a failed answer, and its bytes are not for the client.
  [[nodiscard]] bool take(const frontend::WorkerEvent& event) {
    if (event.head && event.head->status >= 400) status_ = event.head->status;
    if (status_ == 0) return false;
    text_ += event.bytes.substr(0, kMaxMessage - std::min(kMaxMessage, text_.size()));
    return true;
  }
  // nullopt: the answer did not fail.
  [[nodiscard]] std::optional<Error> failure() const;

 private:
  static constexpr size_t kMaxMessage = 4096;  // bytes
  int status_ = 0;
  std::string text_;
};

// The code that TorchServe gives an HTTP status over gRPC; those that we have no name for become their nearest.
[[nodiscard]] Code code_of_http_status(int status);

}  // namespace penstock::rpc
