#include "rpc/predictions.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "frontend/job.h"
#include "frontend/model_registry.h"
#include "rpc/call_options.h"
#include "rpc/error_details.h"
#include "rpc/failed_answer.h"
#include "rpc/predictions_request.h"
#include "rpc/status_map.h"
#include "rpc/trailing_usage.h"
#include "torchserve/inference.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = org::pytorch::serve::grpc::inference;

// Gathers a job's text or bytes and ends the call with them. Shared: the job may hold it longer than the call lives.
class WholeText final : public frontend::RequestObserver {
 public:
  WholeText(grpc::CallbackServerContext& context, grpc::ServerUnaryReactor& reactor, pb::PredictionResponse& response, size_t limit,
            CallRecord record)
      : context_(context), reactor_(reactor), response_(response), limit_(limit), record_(std::move(record)) {}

  [[nodiscard]] frontend::JobOptions job_options() const { return record_.job_options(); }

  bool on_event(const frontend::WorkerEvent& event) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (finished_) return false;
    if (event.finished) usage_ = event.finished;
    if (failed_.take(event)) return true;
    text_ += event.bytes;
    if (text_.size() <= limit_) return true;
    overflow_ = true;
    return false;  // the job ends as cancelled; finish() says why
  }

  void on_done(const std::optional<Error>& failure) override EXCLUDES(mutex_) {
    std::optional<Error> outcome = failure;
    {
      MutexLock lock(mutex_);
      if (std::exchange(finished_, true)) return;
      if (overflow_) {
        outcome = error(Code::kResourceExhausted, "the answer is longer than {} bytes (max_response_size); ask for less, or use StreamPredictions",
                        limit_);
      }
      if (!outcome) outcome = failed_.failure();
      if (!outcome) {
        response_.set_prediction(std::move(text_));
        if (usage_) add_trailing_usage(context_, *usage_);
      }
    }
    reactor_.Finish(record_.end(outcome ? to_status(*outcome) : grpc::Status::OK));
  }

  // There is no job.
  void refuse(const Error& why) { reactor_.Finish(record_.end(to_refusal(why))); }

 private:
  grpc::CallbackServerContext& context_;
  grpc::ServerUnaryReactor& reactor_;  // with context_ and response_: touched only by the one on_done() that finds finished_ false
  pb::PredictionResponse& response_;
  const size_t limit_;
  CallRecord record_;  // as reactor_
  Mutex mutex_;
  std::string text_ GUARDED_BY(mutex_);
  FailedAnswer failed_ GUARDED_BY(mutex_);
  std::optional<frontend::FinishedInfo> usage_ GUARDED_BY(mutex_);
  bool overflow_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
};

class PredictionsReactor final : public grpc::ServerUnaryReactor {
 public:
  PredictionsReactor(grpc::CallbackServerContext& context, const pb::PredictionsRequest& message, pb::PredictionResponse& response,
                     const frontend::ModelRegistry& registry, size_t max_response_bytes, CallRecord record)
      : text_(std::make_shared<WholeText>(context, *this, response, max_response_bytes, std::move(record))) {
    if (const auto refused = start(context, message, response, registry)) text_->refuse(*refused);
  }

  // The client cancelled, went away, or its deadline has passed. The job's end finishes the call.
  void OnCancel() override {
    if (job_) model_->jobs().cancel(*job_);
  }
  void OnDone() override { delete this; }  // gRPC's last word on this call

 private:
  // Why there is no job; nullopt: there is one.
  std::optional<Error> start(const grpc::CallbackServerContext& context, const pb::PredictionsRequest& message, pb::PredictionResponse& response,
                             const frontend::ModelRegistry& registry) {
    auto options = job_options(context, text_->job_options());
    if (!options) return options.error();
    auto call = parse_predictions_request(message, registry);
    if (!call) return call.error();
    model_ = std::move(call->model);
    if (call->sequence) response.set_sequence_id(call->sequence->id);
    options->sequence = std::move(call->sequence);
    auto job = model_->jobs().submit(std::move(call->payload), std::move(*options), text_);
    if (!job) return job.error();
    job_ = *job;
    return std::nullopt;
  }
  const std::shared_ptr<WholeText> text_;
  std::shared_ptr<frontend::ServedModel> model_;
  std::shared_ptr<frontend::Job> job_;  // written before the reactor is handed to gRPC
};

}  // namespace

grpc::ServerUnaryReactor* start_predictions(grpc::CallbackServerContext& context, const pb::PredictionsRequest& message,
                                            pb::PredictionResponse& response, const frontend::ModelRegistry& registry,
                                            size_t max_response_bytes, CallRecord record) {
  return new PredictionsReactor(context, message, response, registry, max_response_bytes, std::move(record));
}

}  // namespace penstock::rpc
