#include "rpc/stream_predictions.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "frontend/job.h"
#include "frontend/model_registry.h"
#include "rpc/call_options.h"
#include "rpc/error_details.h"
#include "rpc/failed_answer.h"
#include "rpc/outbound_queue.h"
#include "rpc/predictions_request.h"
#include "rpc/status_map.h"
#include "rpc/trailing_usage.h"
#include "torchserve/inference.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = org::pytorch::serve::grpc::inference;

// Between a job and one client stream. Shared: the job may hold it longer than the call lives.
// The reactor and the context are touched only when the queue says so, and then the call cannot have ended (outbound_queue.h).
class StreamBridge final : public frontend::RequestObserver {
 public:
  StreamBridge(grpc::CallbackServerContext& context, grpc::ServerWriteReactor<pb::PredictionResponse>& reactor, size_t max_waiting,
               CallRecord record)
      : context_(context), reactor_(reactor), queue_(max_waiting), record_(std::move(record)) {}

  [[nodiscard]] frontend::JobOptions job_options() const { return record_.job_options(); }

  bool on_event(const frontend::WorkerEvent& event) override {
    if (event.finished) finished_ = event.finished;
    if (!failed_.take(event) && !event.bytes.empty()) {
      pb::PredictionResponse message;
      message.set_prediction(event.bytes);
      if (sequence_id_) message.set_sequence_id(*sequence_id_);
      act(queue_.push(std::move(message), event.bytes.size()));
    }
    return !queue_.closed();
  }
  void on_done(const std::optional<Error>& failure) override { act(queue_.close(failure ? failure : failed_.failure())); }

  // There is no job.
  void refuse(const Error& why) {
    refused_ = true;
    act(queue_.close(why));
  }
  // Before the job.
  void set_sequence(std::string id) { sequence_id_ = std::move(id); }
  void abort() { act(queue_.abort(Error(Code::kCancelled, "the client has gone"))); }
  void written(bool ok) { act(queue_.written(ok)); }

 private:
  void act(Next next) {
    if (next == Next::kWrite) reactor_.StartWrite(&queue_.current());
    if (next != Next::kFinish) return;
    if (queue_.outcome()) {
      reactor_.Finish(record_.end(refused_ ? to_refusal(*queue_.outcome()) : to_status(*queue_.outcome())));
      return;
    }
    if (finished_) add_trailing_usage(context_, *finished_);
    reactor_.Finish(record_.end(grpc::Status::OK));
  }

  grpc::CallbackServerContext& context_;
  grpc::ServerWriteReactor<pb::PredictionResponse>& reactor_;
  OutboundQueue<pb::PredictionResponse> queue_;
  CallRecord record_;
  std::optional<std::string> sequence_id_;
  bool refused_ = false;  // written before the close() that lets act() read it
  FailedAnswer failed_;  // read when the job has ended as it should: then every event has come
  std::optional<frontend::FinishedInfo> finished_;  // written before the close() that lets act() read it
};

class StreamPredictionsReactor final : public grpc::ServerWriteReactor<pb::PredictionResponse> {
 public:
  StreamPredictionsReactor(grpc::CallbackServerContext& context, const pb::PredictionsRequest& message,
                           const frontend::ModelRegistry& registry, size_t max_waiting, CallRecord record)
      : bridge_(std::make_shared<StreamBridge>(context, *this, max_waiting, std::move(record))) {
    if (const auto refused = start(context, message, registry)) bridge_->refuse(*refused);
  }

  void OnWriteDone(bool ok) override {
    bridge_->written(ok);
    if (!ok) cancel_job();
  }
  // The client cancelled, went away, or its deadline has passed.
  void OnCancel() override {
    cancel_job();
    bridge_->abort();
  }
  void OnDone() override { delete this; }  // gRPC's last word on this call

 private:
  // Why there is no job; nullopt: there is one.
  std::optional<Error> start(const grpc::CallbackServerContext& context, const pb::PredictionsRequest& message,
                             const frontend::ModelRegistry& registry) {
    auto options = job_options(context, bridge_->job_options());
    if (!options) return options.error();
    auto call = parse_predictions_request(message, registry);
    if (!call) return call.error();
    model_ = std::move(call->model);
    if (call->sequence) bridge_->set_sequence(call->sequence->id);
    options->sequence = std::move(call->sequence);
    auto job = model_->jobs().submit(std::move(call->payload), std::move(*options), bridge_);
    if (!job) return job.error();
    job_ = *job;
    return std::nullopt;
  }
  void cancel_job() {
    if (job_) model_->jobs().cancel(*job_);
  }
  const std::shared_ptr<StreamBridge> bridge_;
  std::shared_ptr<frontend::ServedModel> model_;
  std::shared_ptr<frontend::Job> job_;  // written before the reactor is handed to gRPC
};

}  // namespace

grpc::ServerWriteReactor<pb::PredictionResponse>* start_stream_predictions(grpc::CallbackServerContext& context,
                                                                           const pb::PredictionsRequest& message,
                                                                           const frontend::ModelRegistry& registry,
                                                                           size_t max_waiting_messages, CallRecord record) {
  return new StreamPredictionsReactor(context, message, registry, max_waiting_messages, std::move(record));
}

}  // namespace penstock::rpc
