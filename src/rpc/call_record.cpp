#include "rpc/call_record.h"

#include <grpcpp/grpcpp.h>

#include <string_view>
#include <utility>

#include "base/uuid.h"

namespace penstock::rpc {
namespace {

std::string_view as_view(grpc::string_ref text) { return {text.data(), text.size()}; }

// "ipv4:127.0.0.1:1234" as "127.0.0.1:1234", "ipv6:%5B::1%5D:1234" as "[::1]:1234".
std::string shown_peer(const std::string& peer) {
  if (peer.starts_with("unix:")) return "unix";
  std::string text = peer.starts_with("ipv4:") || peer.starts_with("ipv6:") ? peer.substr(5) : peer;
  for (const auto& [escape, character] : {std::pair("%5B", "["), std::pair("%5D", "]")}) {
    if (const size_t at = text.find(escape); at != std::string::npos) text.replace(at, 3, character);
  }
  return text;
}

}  // namespace

CallRecord::CallRecord(const grpc::CallbackServerContext& context, frontend::RequestWatcher* watcher, const char* service,
                       const char* method)
    : context_(context), watcher_(watcher), service_(service), method_(method) {
  const auto& metadata = context.client_metadata();
  const auto find = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string_view() : as_view(found->second);
  };
  const std::string_view id = find("x-request-id");
  request_id_ = frontend::sane_request_id(id) ? std::string(id) : make_uuid();
  std::string state;
  const auto [first, last] = metadata.equal_range("tracestate");
  for (auto it = first; it != last; ++it) state += (state.empty() ? "" : ",") + std::string(as_view(it->second));
  trace_ = frontend::begin_trace(frontend::read_trace(find("traceparent"), metadata.count("traceparent"), state),
                                 watcher_ && watcher_->records_spans());
}

const grpc::Status& CallRecord::end(const grpc::Status& status) {
  if (!watcher_) return status;
  const std::string peer = shown_peer(context_.peer());
  const std::string target = std::string("/") + service_ + "/" + method_;
  frontend::AnsweredRequest request;
  request.protocol = frontend::Protocol::kGrpc;
  request.peer = peer;
  request.target = target;
  request.version = "HTTP/2.0";
  request.status = static_cast<int>(status.error_code());
  request.took = Clock::now() - began_;
  request.request_id = request_id_;
  request.trace = &trace_;
  watcher_->answered(request);
  return status;
}

}  // namespace penstock::rpc
