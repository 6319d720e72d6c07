#include "rpc/client_channel.h"

#include <grpcpp/grpcpp.h>

namespace penstock::rpc {

std::shared_ptr<grpc::Channel> make_channel(const ServerAddress& server) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (server.authorities.empty()) return grpc::CreateCustomChannel(server.address, grpc::InsecureChannelCredentials(), arguments);
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = server.authorities;
  return grpc::CreateCustomChannel(server.address, grpc::SslCredentials(options), arguments);
}

bool connect(grpc::Channel& channel, Deadline deadline) {
  const auto until = std::chrono::system_clock::now() + deadline.remaining();
  for (auto state = channel.GetState(true); state != GRPC_CHANNEL_READY; state = channel.GetState(true)) {
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) return false;
    if (!channel.WaitForStateChange(state, until)) return false;
  }
  return true;
}

}  // namespace penstock::rpc
