#pragma once
// penstock.v1.Generate, text generation with types. Internal to rpc/.
#include <cstddef>
#include <memory>

#include "frontend/model_registry.h"
#include "frontend/request_watcher.h"

namespace grpc {
class Service;
}

namespace penstock::rpc {

inline constexpr const char* kGenerateService = "penstock.v1.Generate";

// `registry` and `watcher` must outlive it; `watcher` may be null.
[[nodiscard]] std::unique_ptr<grpc::Service> make_generate_service(const frontend::ModelRegistry& registry, size_t max_waiting_messages,
                                                                   frontend::RequestWatcher* watcher);

}  // namespace penstock::rpc
