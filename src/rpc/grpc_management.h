#pragma once
// TorchServe's ManagementAPIsService: translation only. Internal to rpc/: the types of gRPC are declared, not included.
#include <memory>

#include "frontend/management.h"
#include "frontend/request_watcher.h"
#include "rpc/call_pool.h"

namespace grpc {
class Service;
}

namespace penstock::rpc {

// The calls run on `pool`, for they wait. All must outlive the service; `watcher` null: nobody is told.
[[nodiscard]] std::unique_ptr<grpc::Service> make_management_service(frontend::Management& management, CallPool& pool,
                                                                     frontend::RequestWatcher* watcher);

}  // namespace penstock::rpc
