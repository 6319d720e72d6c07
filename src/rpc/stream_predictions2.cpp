#include "rpc/stream_predictions2.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "frontend/job.h"
#include "frontend/model_registry.h"
#include "rpc/call_options.h"
#include "rpc/call_record.h"
#include "rpc/error_details.h"
#include "rpc/failed_answer.h"
#include "rpc/outbound_queue.h"
#include "rpc/predictions_request.h"
#include "rpc/status_map.h"
#include "torchserve/inference.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = org::pytorch::serve::grpc::inference;
using Reactor = grpc::ServerBidiReactor<pb::PredictionsRequest, pb::PredictionResponse>;

// The requests of one stream that have not ended, and what is still to be sent. Shared: jobs may hold it longer than the call lives.
// The reactor is touched only when the queue says so, and then the call cannot have ended (outbound_queue.h).
class RequestStream {
 public:
  RequestStream(Reactor& reactor, size_t max_waiting, CallRecord record) : reactor_(reactor), queue_(max_waiting), record_(std::move(record)) {}

  [[nodiscard]] frontend::JobOptions job_options() const { return record_.job_options(); }

  // One more request; its number.
  int begin() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    running_.emplace(next_number_, Running());
    return next_number_++;
  }
  // What cancels it, unless it has ended by now.
  void set_job(int number, std::shared_ptr<frontend::ServedModel> model, std::shared_ptr<frontend::Job> job) EXCLUDES(mutex_) {
    bool too_late = false;
    {
      MutexLock lock(mutex_);
      const auto found = running_.find(number);
      if (found == running_.end()) return;
      too_late = cancelled_;
      found->second = {model, job};
    }
    if (too_late) model->jobs().cancel(*job);
  }
  void end(int number) EXCLUDES(mutex_) {
    Running ended;  // destroyed without the lock: it may hold the last reference to a model
    bool all_done = false;
    {
      MutexLock lock(mutex_);
      ended = std::move(running_.extract(number).mapped());
      all_done = half_closed_ && running_.empty();
    }
    if (all_done) act(queue_.close(std::nullopt));
  }

  // The client sends no more requests.
  void half_close() EXCLUDES(mutex_) {
    bool all_done = false;
    {
      MutexLock lock(mutex_);
      half_closed_ = true;
      all_done = running_.empty();
    }
    if (all_done) act(queue_.close(std::nullopt));
  }
  void cancel_all() EXCLUDES(mutex_) {
    std::vector<Running> all;
    {
      MutexLock lock(mutex_);
      cancelled_ = true;
      for (const auto& [number, request] : running_) {
        if (request.job) all.push_back(request);
      }
    }
    for (const auto& [model, job] : all) model->jobs().cancel(*job);
  }

  // What is to be done for it, by act().
  [[nodiscard]] Next push(pb::PredictionResponse message) {
    const size_t bytes = message.prediction().size();
    return queue_.push(std::move(message), bytes);
  }
  void act(Next next) {
    if (next == Next::kWrite) reactor_.StartWrite(&queue_.current());
    if (next == Next::kFinish) reactor_.Finish(record_.end(queue_.outcome() ? to_status(*queue_.outcome()) : grpc::Status::OK));
  }
  // Nobody reads any more.
  [[nodiscard]] bool closed() const { return queue_.closed(); }
  void abort() { act(queue_.abort(Error(Code::kCancelled, "the client has gone"))); }
  void written(bool ok) { act(queue_.written(ok)); }

 private:
  struct Running {
    std::shared_ptr<frontend::ServedModel> model;  // held while its job may be touched
    std::shared_ptr<frontend::Job> job;
  };

  Reactor& reactor_;
  OutboundQueue<pb::PredictionResponse> queue_;
  CallRecord record_;
  Mutex mutex_;
  int next_number_ GUARDED_BY(mutex_) = 0;
  std::map<int, Running> running_ GUARDED_BY(mutex_);
  bool half_closed_ GUARDED_BY(mutex_) = false;
  bool cancelled_ GUARDED_BY(mutex_) = false;
};

// Between one job and its replies in the stream.
class Replies final : public frontend::RequestObserver {
 public:
  Replies(std::shared_ptr<RequestStream> stream, int number, std::optional<std::string> sequence_id)
      : stream_(std::move(stream)), number_(number), sequence_id_(std::move(sequence_id)) {}

  bool on_event(const frontend::WorkerEvent& event) override EXCLUDES(mutex_) {
    Next next = Next::kNothing;
    {
      MutexLock lock(mutex_);  // no piece may be queued after the end
      if (ended_) return false;
      if (failed_.take(event)) return true;
      if (event.last || event.finished) last_ = event.bytes;  // goes with the status
      if (event.last || event.finished || event.bytes.empty()) return true;
      pb::PredictionResponse message = reply();
      message.set_prediction(event.bytes);
      next = stream_->push(std::move(message));
    }
    stream_->act(next);
    return !stream_->closed();
  }
  void on_done(const std::optional<Error>& failure) override { end(failure, Stage::kBegun); }
  void refuse(const Error& why) { end(why, Stage::kRefused); }

 private:
  void end(const std::optional<Error>& failure, Stage stage) EXCLUDES(mutex_) {
    Next next = Next::kNothing;
    {
      MutexLock lock(mutex_);
      if (std::exchange(ended_, true)) return;
      const auto outcome = failure ? failure : failed_.failure();
      pb::PredictionResponse message = reply();
      if (outcome) *message.mutable_status() = to_rpc_status(*outcome, stage);
      else message.mutable_status();  // OK
      if (!outcome) message.set_prediction(std::move(last_));
      next = stream_->push(std::move(message));
    }
    stream_->act(next);
    stream_->end(number_);
  }
  [[nodiscard]] pb::PredictionResponse reply() const {
    pb::PredictionResponse message;
    if (sequence_id_) message.set_sequence_id(*sequence_id_);
    return message;
  }

  const std::shared_ptr<RequestStream> stream_;
  const int number_;
  const std::optional<std::string> sequence_id_;
  Mutex mutex_;
  FailedAnswer failed_ GUARDED_BY(mutex_);
  std::string last_ GUARDED_BY(mutex_);
  bool ended_ GUARDED_BY(mutex_) = false;
};

class StreamPredictions2Reactor final : public Reactor {
 public:
  StreamPredictions2Reactor(const grpc::CallbackServerContext& context, const frontend::ModelRegistry& registry, size_t max_waiting,
                            CallRecord record)
      : context_(context), registry_(registry), stream_(std::make_shared<RequestStream>(*this, max_waiting, std::move(record))) {
    StartRead(&message_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) return stream_->half_close();
    take(message_);
    message_.Clear();
    StartRead(&message_);
  }
  void OnWriteDone(bool ok) override { stream_->written(ok); }
  // The client cancelled, went away, or its deadline has passed.
  void OnCancel() override {
    stream_->cancel_all();
    stream_->abort();
  }
  void OnDone() override {
    stream_->cancel_all();  // of a reader that was too slow
    delete this;            // gRPC's last word on this call
  }

 private:
  void take(const pb::PredictionsRequest& message) {
    auto call = parse_predictions_request(message, registry_);
    std::optional<std::string> sequence_id;
    if (call && call->sequence) sequence_id = call->sequence->id;
    else if (message.has_sequence_id()) sequence_id = message.sequence_id();
    const int number = stream_->begin();
    const auto replies = std::make_shared<Replies>(stream_, number, std::move(sequence_id));
    if (!call) return replies->refuse(call.error());
    auto options = job_options(context_, stream_->job_options());
    if (!options) return replies->refuse(options.error());
    options->sequence = std::move(call->sequence);
    auto job = call->model->jobs().submit(std::move(call->payload), std::move(*options), replies);
    if (!job) return replies->refuse(job.error());
    stream_->set_job(number, call->model, *job);
  }

  const grpc::CallbackServerContext& context_;
  const frontend::ModelRegistry& registry_;
  const std::shared_ptr<RequestStream> stream_;
  pb::PredictionsRequest message_;
};

}  // namespace

Reactor* start_stream_predictions2(const grpc::CallbackServerContext& context, const frontend::ModelRegistry& registry,
                                   size_t max_waiting_messages, CallRecord record) {
  return new StreamPredictions2Reactor(context, registry, max_waiting_messages, std::move(record));
}

}  // namespace penstock::rpc
