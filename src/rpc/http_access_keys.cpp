#include "rpc/http_access_keys.h"

#include "base/log.h"

namespace penstock::rpc {
namespace {

HttpResponse renew(frontend::AccessKeys& access_keys, frontend::KeySet kind) {
  try {
    access_keys.renew(kind);
    return {200, "application/json", "", {}};
  } catch (const Error& failure) {
    spdlog::error("/token: {}", failure.message());  // the path of the file is not the client's business
    return error_response(500, "InternalServerException", "the key file cannot be written; the server's log says why. The old key stays");
  }
}

}  // namespace

std::vector<HttpRoute> access_key_routes(frontend::AccessKeys& access_keys, CallPool& pool) {
  const auto handle = [&access_keys, &pool](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
    const auto type = request.query.find("type");
    const bool management = type != request.query.end() && type->second == "management";
    const bool inference = type != request.query.end() && type->second == "inference";
    if (!management && !inference) {
      return reply->send(error_response(400, "BadRequestException", "type: expected management or inference, as in /token?type=inference"));
    }
    const auto kind = management ? frontend::kManagementKey : frontend::kInferenceKey;
    pool.run([&access_keys, kind, reply] { reply->send(renew(access_keys, kind)); }, [reply](const Error& why) { reply->send(error_response(why)); });
  };
  return {{"*", "/token", "A new key, to be read in the key file", {"type"}, handle, frontend::kApiKey}};
}

}  // namespace penstock::rpc
