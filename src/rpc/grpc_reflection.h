#pragma once
// grpc.reflection.v1. Internal to rpc/: the types of gRPC are declared, not included.
#include <memory>
#include <string>
#include <vector>

namespace grpc {
class Service;
}

namespace penstock::rpc {

// Lists `services` (full names) and describes every file of ours that this program knows.
[[nodiscard]] std::unique_ptr<grpc::Service> make_reflection_service(std::vector<std::string> services);

}  // namespace penstock::rpc
