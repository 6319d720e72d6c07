#include "rpc/grpc_management.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <exception>
#include <functional>
#include <optional>
#include <utility>

#include "rpc/call_pool.h"
#include "rpc/call_record.h"
#include "rpc/status_map.h"
#include "torchserve/management.grpc.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = org::pytorch::serve::grpc::management;
using frontend::ManagementAnswer;
using Context = grpc::CallbackServerContext;
using Reactor = grpc::ServerUnaryReactor;

constexpr const char* kService = "org.pytorch.serve.grpc.management.ManagementAPIsService";

// In TorchServe's messages a number that is 0 or less is not given.
std::optional<int> given(int number) { return number > 0 ? std::optional(number) : std::nullopt; }
std::optional<seconds> given_seconds(int number) { return number > 0 ? std::optional(seconds(number)) : std::nullopt; }

frontend::RegisterRequest from_proto(const pb::RegisterModelRequest& message) {
  frontend::RegisterRequest request;
  if (!message.url().empty()) request.url = message.url();
  request.model_name = message.model_name();
  request.handler = message.handler();
  request.runtime = message.runtime();
  request.initial_workers = given(message.initial_workers());
  request.settings.batch_size = given(message.batch_size());
  request.settings.max_batch_delay_ms = given(message.max_batch_delay());
  request.settings.response_timeout = given_seconds(message.response_timeout());
  request.settings.startup_timeout = given_seconds(message.startup_timeout());
  request.s3_sse_kms = message.s3_sse_kms();
  request.synchronous = message.synchronous();
  return request;
}

frontend::ScaleRequest from_proto(const pb::ScaleWorkerRequest& message) {
  frontend::ScaleRequest request;
  request.model_name = message.model_name();
  request.version = message.model_version();
  if (message.min_worker() != 0) request.min_worker = message.min_worker();
  if (message.max_worker() != 0) request.max_worker = message.max_worker();
  if (message.timeout() != 0) request.timeout_s = message.timeout();
  request.synchronous = message.synchronous();
  return request;
}

class ManagementService final : public pb::ManagementAPIsService::CallbackService {
 public:
  ManagementService(frontend::Management& management, CallPool& pool, frontend::RequestWatcher* watcher)
      : management_(management), pool_(pool), watcher_(watcher) {}

  Reactor* DescribeModel(Context* context, const pb::DescribeModelRequest* request, pb::ManagementResponse* response) override {
    return run(*context, *response, "DescribeModel", [this, request] {
      return management_.describe(request->model_name(), request->model_version(), request->customized());
    });
  }
  Reactor* ListModels(Context* context, const pb::ListModelsRequest* request, pb::ManagementResponse* response) override {
    return run(*context, *response, "ListModels", [this, request] { return management_.list(request->limit(), request->next_page_token()); });
  }
  Reactor* RegisterModel(Context* context, const pb::RegisterModelRequest* request, pb::ManagementResponse* response) override {
    return run(*context, *response, "RegisterModel", [this, request] { return management_.register_model(from_proto(*request)); });
  }
  Reactor* ScaleWorker(Context* context, const pb::ScaleWorkerRequest* request, pb::ManagementResponse* response) override {
    return run(*context, *response, "ScaleWorker", [this, request] { return management_.scale(from_proto(*request)); });
  }
  Reactor* SetDefault(Context* context, const pb::SetDefaultRequest* request, pb::ManagementResponse* response) override {
    return run(*context, *response, "SetDefault", [this, request] { return management_.set_default(request->model_name(), request->model_version()); });
  }
  Reactor* UnregisterModel(Context* context, const pb::UnregisterModelRequest* request, pb::ManagementResponse* response) override {
    return run(*context, *response, "UnregisterModel", [this, request] { return management_.unregister(request->model_name(), request->model_version()); });
  }

 private:
  // Request and response live until Finish. A client that goes does not stop what it has started.
  Reactor* run(Context& context, pb::ManagementResponse& response, const char* method, std::function<ManagementAnswer()> call) {
    Reactor* reactor = context.DefaultReactor();
    const auto record = std::make_shared<CallRecord>(context, watcher_, kService, method);
    pool_.run([reactor, record, &response, call = std::move(call)] { reactor->Finish(record->end(answer(call, response))); },
              [reactor, record](const Error& why) { reactor->Finish(record->end(to_status(why))); });
    return reactor;
  }

  static grpc::Status answer(const std::function<ManagementAnswer()>& call, pb::ManagementResponse& response) {
    try {
      ManagementAnswer answer = call();
      if (!answer.ok()) return to_status(Error(answer.code, answer.text));
      response.set_msg(std::move(answer.text));
      return grpc::Status::OK;
    } catch (const Error& failure) {
      return to_status(failure);
    } catch (const std::exception& failure) {
      return to_status(Error(Code::kInternal, failure.what()));
    }
  }

  frontend::Management& management_;
  CallPool& pool_;
  frontend::RequestWatcher* const watcher_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_management_service(frontend::Management& management, CallPool& pool, frontend::RequestWatcher* watcher) {
  return std::make_unique<ManagementService>(management, pool, watcher);
}

}  // namespace penstock::rpc
