#include "rpc/grpc_generate.h"

#include "rpc/job_stream_reactor.h"

#include <memory>
#include <optional>
#include <utility>

#include "penstock/generate.grpc.pb.h"
#include "rpc/generate_messages.h"

namespace penstock::rpc {
namespace {

class ResponseWriter final : public EventWriter<v1::GenerateResponse> {
 public:
  std::optional<v1::GenerateResponse> message(const frontend::WorkerEvent& event) override {
    if (event.finished) finished_ = true;
    return to_response(event);
  }
  std::optional<Error> outcome() const override {
    if (finished_) return std::nullopt;
    return Error(Code::kInternal, "the worker ended the generation without saying why");
  }

 private:
  bool finished_ = false;
};

Result<StreamCall> read_call(const v1::GenerateRequest& message, const frontend::ModelRegistry& registry, frontend::JobOptions options) {
  if (message.model().empty()) return Error(Code::kInvalidArgument, "field 'model': expected a name, found nothing");
  auto model = registry.find(message.model(), message.model_version());
  if (!model) return model.error();
  if ((*model)->spec().handler_kind != frontend::HandlerKind::kText) {
    return error(Code::kUnimplemented, "the model '{}' does not generate text: its handler is '{}'; expected 'llm'", message.model(), (*model)->spec().handler);
  }
  auto request = from_proto(message);
  if (!request) return request.error();
  return StreamCall{*model, std::move(*request), std::move(options)};
}

class GenerateService final : public v1::Generate::CallbackService {
 public:
  GenerateService(const frontend::ModelRegistry& registry, size_t max_waiting_messages, frontend::RequestWatcher* watcher)
      : registry_(registry), max_waiting_messages_(max_waiting_messages), watcher_(watcher) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    const auto read = [&](frontend::JobOptions options) { return read_call(*request, registry_, std::move(options)); };
    return new JobStreamReactor<v1::GenerateResponse>(*context, std::make_shared<ResponseWriter>(), max_waiting_messages_,
                                                      CallRecord(*context, watcher_, kGenerateService, "Generate"), read);
  }

 private:
  const frontend::ModelRegistry& registry_;
  const size_t max_waiting_messages_;
  frontend::RequestWatcher* const watcher_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_generate_service(const frontend::ModelRegistry& registry, size_t max_waiting_messages,
                                                     frontend::RequestWatcher* watcher) {
  return std::make_unique<GenerateService>(registry, max_waiting_messages, watcher);
}

}  // namespace penstock::rpc
