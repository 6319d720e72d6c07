#include "rpc/error_details.h"

#include <grpcpp/support/status.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "rpc/status_map.h"

namespace penstock::rpc {
namespace {

constexpr const char* kDomain = "penstock";
// A queue moves on with every answer, so soon is not too early.
constexpr int kRetrySeconds = 1;

std::string reason_of(Code code) {
  std::string reason(to_string(code));
  std::transform(reason.begin(), reason.end(), reason.begin(),
                 [](unsigned char c) { return c == ' ' ? '_' : static_cast<char>(std::toupper(c)); });
  return reason;
}

}  // namespace

google::rpc::Status to_rpc_status(const Error& error, Stage stage) {
  const grpc::Status plain = to_status(error);
  google::rpc::Status status;
  status.set_code(plain.error_code());
  status.set_message(plain.error_message());
  google::rpc::ErrorInfo info;
  info.set_reason(reason_of(error.code()));
  info.set_domain(kDomain);
  status.add_details()->PackFrom(info);
  const bool may_pass = error.code() == Code::kResourceExhausted || error.code() == Code::kUnavailable;
  if (stage == Stage::kRefused && may_pass) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetrySeconds);
    status.add_details()->PackFrom(retry);
  }
  return status;
}

grpc::Status to_refusal(const Error& error) {
  const grpc::Status plain = to_status(error);
  return {plain.error_code(), plain.error_message(), to_rpc_status(error, Stage::kRefused).SerializeAsString()};
}

}  // namespace penstock::rpc
