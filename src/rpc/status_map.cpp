#include "rpc/status_map.h"

#include <grpcpp/support/status.h>

#include <array>
#include <utility>

namespace penstock::rpc {
namespace {

constexpr std::array<std::pair<Code, grpc::StatusCode>, 12> kCodes = {{
    {Code::kInvalidArgument, grpc::StatusCode::INVALID_ARGUMENT},
    {Code::kNotFound, grpc::StatusCode::NOT_FOUND},
    {Code::kAlreadyExists, grpc::StatusCode::ALREADY_EXISTS},
    {Code::kPermissionDenied, grpc::StatusCode::PERMISSION_DENIED},
    {Code::kFailedPrecondition, grpc::StatusCode::FAILED_PRECONDITION},
    {Code::kResourceExhausted, grpc::StatusCode::RESOURCE_EXHAUSTED},
    {Code::kUnavailable, grpc::StatusCode::UNAVAILABLE},
    {Code::kDeadlineExceeded, grpc::StatusCode::DEADLINE_EXCEEDED},
    {Code::kCancelled, grpc::StatusCode::CANCELLED},
    {Code::kDataLoss, grpc::StatusCode::DATA_LOSS},
    {Code::kUnimplemented, grpc::StatusCode::UNIMPLEMENTED},
    {Code::kInternal, grpc::StatusCode::INTERNAL},
}};

// Status messages travel in a header, whose size peers limit (8 KiB by default); our messages may quote worker logs.
constexpr size_t kMaxMessageBytes = 4096;

}  // namespace

grpc::Status to_status(const Error& error) {
  std::string message = error.message();
  if (message.size() > kMaxMessageBytes) {
    size_t cut = kMaxMessageBytes;
    while (cut > 0 && (static_cast<unsigned char>(message[cut]) & 0xC0) == 0x80) --cut;  // not within a UTF-8 character
    message.resize(cut);
    message += " ...";
  }
  for (const auto& [ours, theirs] : kCodes) {
    if (ours == error.code()) return {theirs, message};
  }
  return {grpc::StatusCode::INTERNAL, message};
}

Error to_error(const grpc::Status& status) {
  for (const auto& [ours, theirs] : kCodes) {
    if (theirs == status.error_code()) return {ours, status.error_message()};
  }
  return {Code::kInternal, status.error_message()};
}

}  // namespace penstock::rpc
