#include "rpc/call_options.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <string>

namespace penstock::rpc {
namespace {

std::string client_of(const grpc::CallbackServerContext& context) {
  const auto auth = context.auth_context();
  if (auth && auth->IsPeerAuthenticated()) {
    const auto names = auth->GetPeerIdentity();
    if (!names.empty()) return std::string(names[0].data(), names[0].size());
  }
  return client_address(context.peer());
}

// A deadline that is further away than this is none.
constexpr std::chrono::hours kFar{24 * 365};

Deadline deadline_of(const grpc::CallbackServerContext& context) {
  const auto now = std::chrono::system_clock::now();
  const auto when = context.deadline();
  return when > now + kFar ? Deadline::never() : Deadline::after(when - now);
}

}  // namespace

std::string client_address(std::string_view peer) {
  if (peer.starts_with("ipv4:") || peer.starts_with("ipv6:")) peer = peer.substr(0, peer.rfind(':'));
  return std::string(peer);
}

Result<frontend::JobOptions> job_options(const grpc::CallbackServerContext& context, frontend::JobOptions options) {
  const auto& metadata = context.client_metadata();
  if (const auto given = metadata.find("x-priority"); given != metadata.end()) {
    auto priority = frontend::parse_priority({given->second.data(), given->second.size()});
    if (!priority) return priority.error();
    options.priority = *priority;
  }
  options.client = client_of(context);
  options.deadline = deadline_of(context);
  return options;
}

}  // namespace penstock::rpc
