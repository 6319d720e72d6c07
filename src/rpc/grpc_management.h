#pragma once
// TorchServe's ManagementAPIsService: translation only. Internal to rpc/: the types of gRPC are declared, not included.
#include <memory>

#include "frontend/management.h"
#include "frontend/request_watcher.h"

namespace grpc {
class Service;
}

namespace penstock::rpc {

// All of its calls, on a pool of threads of its own. `management` and `watcher` (null: nobody is told) must outlive the service.
[[nodiscard]] std::unique_ptr<grpc::Service> make_management_service(frontend::Management& management, frontend::RequestWatcher* watcher);

}  // namespace penstock::rpc
