#pragma once
// A call that is answered by a stream: the events of one job become messages. Private to rpc/*.cpp: it shows the types of gRPC.
#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "frontend/job.h"
#include "frontend/served_model.h"
#include "rpc/call_options.h"
#include "rpc/call_record.h"
#include "rpc/error_details.h"
#include "rpc/outbound_queue.h"
#include "rpc/status_map.h"

namespace penstock::rpc {

// What one kind of call makes of its job's events.
//
// Threads: one call at a time; outcome() and add_trailers() after the last event.
template <typename Message>
class EventWriter {
 public:
  virtual ~EventWriter() = default;
  // nullopt: nothing is to be sent.
  [[nodiscard]] virtual std::optional<Message> message(const frontend::WorkerEvent& event) = 0;
  // The job has ended as it should: why the call fails all the same; nullopt: it does not.
  [[nodiscard]] virtual std::optional<Error> outcome() const = 0;
  // Before the call ends with OK.
  virtual void add_trailers(grpc::CallbackServerContext&) const {}
};

// A request that was read and checked, and for whom.
struct StreamCall {
  std::shared_ptr<frontend::ServedModel> model;  // held while its job may be touched
  frontend::Payload payload;
  frontend::JobOptions options;
};

// Between a job and one client stream. Shared: the job may hold it longer than the call lives.
// The reactor and the context are touched only when the queue says so, and then the call cannot have ended (outbound_queue.h).
template <typename Message>
class StreamBridge final : public frontend::RequestObserver {
 public:
  StreamBridge(grpc::CallbackServerContext& context, grpc::ServerWriteReactor<Message>& reactor, std::shared_ptr<EventWriter<Message>> writer,
               size_t max_waiting, CallRecord record)
      : context_(context), reactor_(reactor), writer_(std::move(writer)), queue_(max_waiting), record_(std::move(record)) {}

  [[nodiscard]] frontend::JobOptions job_options() const { return record_.job_options(); }

  bool on_event(const frontend::WorkerEvent& event) override {
    if (auto message = writer_->message(event)) {
      const size_t bytes = message->ByteSizeLong();
      act(queue_.push(std::move(*message), bytes));
    }
    return !queue_.closed();
  }
  void on_done(const std::optional<Error>& failure) override { act(queue_.close(failure ? failure : writer_->outcome())); }

  // There is no job.
  void refuse(const Error& why) {
    refused_ = true;
    act(queue_.close(why));
  }
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
    writer_->add_trailers(context_);
    reactor_.Finish(record_.end(grpc::Status::OK));
  }

  grpc::CallbackServerContext& context_;
  grpc::ServerWriteReactor<Message>& reactor_;
  const std::shared_ptr<EventWriter<Message>> writer_;  // what it has kept of events is read after the close() that lets act() do so
  OutboundQueue<Message> queue_;
  CallRecord record_;
  bool refused_ = false;  // written before the close() that lets act() read it
};

// Deletes itself after its call.
template <typename Message>
class JobStreamReactor final : public grpc::ServerWriteReactor<Message> {
 public:
  // `read`: what the call asks for, or why it is refused; it gets what the call's metadata say of the job.
  JobStreamReactor(grpc::CallbackServerContext& context, std::shared_ptr<EventWriter<Message>> writer, size_t max_waiting, CallRecord record,
                   const std::function<Result<StreamCall>(frontend::JobOptions)>& read)
      : bridge_(std::make_shared<StreamBridge<Message>>(context, *this, std::move(writer), max_waiting, std::move(record))) {
    if (const auto refused = start(context, read)) bridge_->refuse(*refused);
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
  std::optional<Error> start(const grpc::CallbackServerContext& context, const std::function<Result<StreamCall>(frontend::JobOptions)>& read) {
    auto options = job_options(context, bridge_->job_options());
    if (!options) return options.error();
    auto call = read(std::move(*options));
    if (!call) return call.error();
    model_ = std::move(call->model);
    auto job = model_->jobs().submit(std::move(call->payload), std::move(call->options), bridge_);
    if (!job) return job.error();
    job_ = *job;
    return std::nullopt;
  }
  void cancel_job() {
    if (job_) model_->jobs().cancel(*job_);
  }

  const std::shared_ptr<StreamBridge<Message>> bridge_;
  std::shared_ptr<frontend::ServedModel> model_;
  std::shared_ptr<frontend::Job> job_;  // written before the reactor is handed to gRPC
};

}  // namespace penstock::rpc
