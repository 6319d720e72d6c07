#include "rpc/grpc_open_inference.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <optional>
#include <utility>

#include "frontend/job.h"
#include "kserve/open_inference.grpc.pb.h"
#include "openinference/open_inference.grpc.pb.h"
#include "rpc/call_options.h"
#include "rpc/call_record.h"
#include "rpc/error_details.h"
#include "rpc/infer_contents.h"
#include "rpc/status_map.h"

namespace penstock::rpc {
namespace {

namespace pb = org::pytorch::serve::grpc::openinference;

// One ModelInfer.
class InferReactor final : public grpc::ServerUnaryReactor {
 public:
  InferReactor(const grpc::CallbackServerContext& context, const pb::ModelInferRequest& request, pb::ModelInferResponse& response,
               const frontend::ModelRegistry& registry, size_t limit, CallRecord record)
      : request_(request), response_(response), record_(std::move(record)) {
    if (const auto refused = start(context, registry, limit)) Finish(record_.end(to_refusal(*refused)));
  }
  // The job's end finishes the call.
  void OnCancel() override {
    if (job_) model_->jobs().cancel(*job_);
  }
  void OnDone() override { delete this; }  // gRPC's last word on this call

 private:
  // Why there is no job; nullopt: there is one, and its end finishes the call.
  std::optional<Error> start(const grpc::CallbackServerContext& context, const frontend::ModelRegistry& registry, size_t limit) {
    auto options = job_options(context, record_.job_options());
    if (!options) return options.error();
    auto model = registry.find(request_.model_name(), request_.model_version());
    if (!model) return model.error();
    model_ = *model;
    auto inputs = inputs_of(request_);
    if (!inputs) return inputs.error();
    auto payload = infer_payload(*model_, *inputs);
    if (!payload) return payload.error();
    const Error too_long = error(Code::kResourceExhausted, "the answer is longer than {} bytes (max_response_size); ask for less", limit);
    auto observer = gather_tensors(limit, too_long, [this](Result<std::vector<handler::Tensor>> outputs) { finish(std::move(outputs)); });
    auto job = model_->jobs().submit(std::move(*payload), std::move(*options), std::move(observer));
    if (!job) return job.error();
    job_ = *job;
    return std::nullopt;
  }

  void finish(Result<std::vector<handler::Tensor>> outputs) {
    std::optional<Error> failure;
    if (!outputs) failure = outputs.error();
    else failure = add_outputs(response_, request_, std::move(*outputs));
    if (failure) return Finish(record_.end(to_status(*failure)));
    response_.set_model_name(model_->name());
    response_.set_model_version(model_->version());
    response_.set_id(request_.id());
    Finish(record_.end(grpc::Status::OK));
  }

  const pb::ModelInferRequest& request_;
  pb::ModelInferResponse& response_;
  CallRecord record_;
  std::shared_ptr<frontend::ServedModel> model_;
  std::shared_ptr<frontend::Job> job_;  // written before the reactor is handed to gRPC
};

void add_tensor(google::protobuf::RepeatedPtrField<pb::ModelMetadataResponse::TensorMetadata>& list, const char* name) {
  pb::ModelMetadataResponse::TensorMetadata* tensor = list.Add();
  tensor->set_name(name);
  tensor->set_datatype("BYTES");
  tensor->add_shape(1);
}

// The same for both package names.
template <typename Base>
class OpenInference final : public Base {
 public:
  OpenInference(const char* name, const frontend::ModelRegistry& registry, size_t max_response_bytes, frontend::RequestWatcher* watcher)
      : name_(name), registry_(registry), max_response_bytes_(max_response_bytes), watcher_(watcher) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context, const pb::ServerLiveRequest*, pb::ServerLiveResponse* response) override {
    response->set_live(true);
    return finished(*context, "ServerLive", std::nullopt);
  }
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context, const pb::ServerReadyRequest*,
                                        pb::ServerReadyResponse* response) override {
    response->set_ready(registry_.all_serving());
    return finished(*context, "ServerReady", std::nullopt);
  }
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context, const pb::ModelReadyRequest* request,
                                       pb::ModelReadyResponse* response) override {
    const auto model = registry_.find(request->name(), request->version());
    if (!model) return finished(*context, "ModelReady", model.error());
    response->set_ready(model.value()->serving());
    return finished(*context, "ModelReady", std::nullopt);
  }
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context, const pb::ServerMetadataRequest*,
                                           pb::ServerMetadataResponse* response) override {
    response->set_name("penstock");
    response->set_version(PENSTOCK_VERSION);
    return finished(*context, "ServerMetadata", std::nullopt);
  }
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context, const pb::ModelMetadataRequest* request,
                                          pb::ModelMetadataResponse* response) override {
    const auto model = registry_.find(request->name(), request->version());
    if (!model) return finished(*context, "ModelMetadata", model.error());
    response->set_name(model.value()->name());
    const auto versions = registry_.versions(request->name());
    if (!versions) return finished(*context, "ModelMetadata", versions.error());
    for (const auto& version : versions.value()) response->add_versions(version->version());
    response->set_platform(platform_of(*model.value()));
    if (model.value()->spec().handler_kind == frontend::HandlerKind::kText) {
      add_tensor(*response->mutable_inputs(), "text");
      add_tensor(*response->mutable_outputs(), "text");
    }
    return finished(*context, "ModelMetadata", std::nullopt);
  }
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context, const pb::ModelInferRequest* request,
                                       pb::ModelInferResponse* response) override {
    return new InferReactor(*context, *request, *response, registry_, max_response_bytes_, record(*context, "ModelInfer"));
  }

 private:
  [[nodiscard]] CallRecord record(const grpc::CallbackServerContext& context, const char* method) const { return {context, watcher_, name_, method}; }

  grpc::ServerUnaryReactor* finished(grpc::CallbackServerContext& context, const char* method, const std::optional<Error>& failure) const {
    auto* reactor = context.DefaultReactor();
    reactor->Finish(record(context, method).end(failure ? to_refusal(*failure) : grpc::Status::OK));
    return reactor;
  }
  const char* const name_;  // with its package
  const frontend::ModelRegistry& registry_;
  const size_t max_response_bytes_;
  frontend::RequestWatcher* const watcher_;
};

template <typename Base>
NamedService make_service(const char* name, const frontend::ModelRegistry& registry, size_t max_response_bytes, frontend::RequestWatcher* watcher) {
  return {name, std::make_unique<OpenInference<Base>>(name, registry, max_response_bytes, watcher)};
}

}  // namespace

std::vector<NamedService> make_open_inference_services(const frontend::ModelRegistry& registry, size_t max_response_bytes,
                                                       frontend::RequestWatcher* watcher) {
  std::vector<NamedService> services;
  services.push_back(make_service<pb::GRPCInferenceService::CallbackService>("org.pytorch.serve.grpc.openinference.GRPCInferenceService", registry,
                                                                             max_response_bytes, watcher));
  services.push_back(make_service<::inference::GRPCInferenceService::CallbackService>("inference.GRPCInferenceService", registry, max_response_bytes,
                                                                                      watcher));
  return services;
}

}  // namespace penstock::rpc
