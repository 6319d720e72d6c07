#include "rpc/grpc_credentials.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpcpp/security/server_credentials.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "rpc/status_map.h"

namespace penstock::rpc {
namespace {

constexpr const char* kConnectionProperty = "penstock-connection";

std::string_view text_of(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

// gRPC's hook for the metadata of each call.
//
// Threads: any of gRPC's, several at once.
class Gatekeeper {
 public:
  Gatekeeper(frontend::AccessKeys& access_keys, frontend::KeySet keys) : access_keys_(access_keys), keys_(keys) {}

  static grpc_auth_metadata_processor hook(frontend::AccessKeys& access_keys, frontend::KeySet keys) {
    return {[](void* self, grpc_auth_context* connection, const grpc_metadata* metadata, size_t count, grpc_process_auth_metadata_done_cb done,
               void* call) { static_cast<Gatekeeper*>(self)->process(connection, metadata, count, done, call); },
            [](void* self) { delete static_cast<Gatekeeper*>(self); }, new Gatekeeper(access_keys, keys)};
  }

 private:
  void process(grpc_auth_context* connection, const grpc_metadata* metadata, size_t count, grpc_process_auth_metadata_done_cb done, void* call) {
    const grpc_metadata* found = nullptr;
    size_t times = 0;
    for (size_t i = 0; i < count; ++i) {
      if (text_of(metadata[i].key) != "authorization") continue;
      found = &metadata[i];
      ++times;
    }
    const std::string_view authorization = times == 1 ? text_of(found->value) : "";  // two tokens are none
    const auto refused = access_keys_.check(keys_, authorization, name_of(connection));
    if (!refused) return done(call, found, times == 1 ? 1 : 0, nullptr, 0, GRPC_STATUS_OK, nullptr);
    const auto code = static_cast<grpc_status_code>(to_status(*refused).error_code());
    done(call, nullptr, 0, nullptr, 0, code, refused->message().c_str());
  }

  // A name that no other connection has or will have, kept with the connection.
  std::string name_of(grpc_auth_context* connection) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    grpc_auth_property_iterator properties = grpc_auth_context_find_properties_by_name(connection, kConnectionProperty);
    if (const grpc_auth_property* known = grpc_auth_property_iterator_next(&properties)) return {known->value, known->value_length};
    const std::string name = fmt::format("gRPC connection {}", next_++);
    grpc_auth_context_add_cstring_property(connection, kConnectionProperty, name.c_str());
    return name;
  }

  frontend::AccessKeys& access_keys_;
  const frontend::KeySet keys_;
  Mutex mutex_;  // also around the connections' properties, which gRPC does not guard
  uint64_t next_ GUARDED_BY(mutex_) = 1;
};

class Credentials final : public grpc::ServerCredentials {
 public:
  Credentials(frontend::AccessKeys* access_keys, frontend::KeySet keys, std::optional<TlsFiles> tls)
      : access_keys_(access_keys), keys_(keys), tls_(std::move(tls)) {}
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    PENSTOCK_CHECK(false, "the gatekeeper is the only processor");
  }

 private:
  // gRPC's C++ interface has no processor for connections without TLS; its core has.
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    grpc_server_credentials* credentials = tls_ ? make_tls() : grpc_insecure_server_credentials_create();
    if (!credentials) return 0;
    if (access_keys_) grpc_server_credentials_set_auth_metadata_processor(credentials, Gatekeeper::hook(*access_keys_, keys_));
    const int port = grpc_server_add_http2_port(server, address.c_str(), credentials);
    grpc_server_credentials_release(credentials);
    return port;
  }

  [[nodiscard]] grpc_server_credentials* make_tls() const {
    grpc_ssl_pem_key_cert_pair pair{tls_->private_key.c_str(), tls_->certificates.c_str()};
    const bool asks = !tls_->client_authorities.empty();
    return grpc_ssl_server_credentials_create_ex(
        asks ? tls_->client_authorities.c_str() : nullptr, &pair, 1,
        asks ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE, nullptr);
  }

  frontend::AccessKeys* const access_keys_;
  const frontend::KeySet keys_;
  const std::optional<TlsFiles> tls_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> make_server_credentials(frontend::AccessKeys* access_keys, frontend::KeySet keys,
                                                                 std::optional<TlsFiles> tls) {
  return std::make_shared<Credentials>(access_keys, keys, std::move(tls));
}

}  // namespace penstock::rpc
