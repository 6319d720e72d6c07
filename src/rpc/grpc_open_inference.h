#pragma once
// KServe's Open Inference protocol over gRPC. Internal to rpc/: the types of gRPC are declared, not included.
#include <memory>
#include <string>
#include <vector>

#include "frontend/model_registry.h"
#include "frontend/request_watcher.h"

namespace grpc {
class Service;
}

namespace penstock::rpc {

struct NamedService {
  std::string name;  // with its package
  std::unique_ptr<grpc::Service> service;
};

// The service twice: under TorchServe's package name, and under KServe's own. `watcher`: told of every ended call; null = nobody.
// Registry and watcher must outlive them.
[[nodiscard]] std::vector<NamedService> make_open_inference_services(const frontend::ModelRegistry& registry, size_t max_response_bytes,
                                                                     frontend::RequestWatcher* watcher);

}  // namespace penstock::rpc
