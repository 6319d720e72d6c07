#pragma once
// A worker played by hand, for the tests of this folder.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "frontend/worker_client.h"

namespace penstock::frontend {

// The requests that a test has started: it sends their events and ends them itself. A cancelled call ends at once, as over gRPC.
class FakeCall final : public WorkerCall {
 public:
  FakeCall(Payload payload, std::shared_ptr<RequestObserver> observer) : payload(std::move(payload)), observer_(std::move(observer)) {}
  void cancel() override {
    cancelled = true;
    end(Error(Code::kCancelled, "cancelled"));
  }
  bool send(const std::string& text, std::optional<handler::AnswerHead> head = std::nullopt, int token_id = -1) {
    WorkerEvent event;
    event.bytes = text;
    event.token_id = token_id;
    event.head = std::move(head);
    const auto observer = this->observer();
    return observer && observer->on_event(event);
  }
  void end(std::optional<Error> failure) {
    std::shared_ptr<RequestObserver> observer;
    {
      MutexLock lock(mutex_);
      observer = std::exchange(observer_, nullptr);
    }
    if (observer) observer->on_done(failure);
  }
  bool send_token(int token_id) { return send(std::to_string(token_id) + " ", std::nullopt, token_id); }
  bool send_last(int token_id) {
    WorkerEvent event;
    event.token_id = token_id;
    event.finished = FinishedInfo{"stop", 1, 1, 0};
    const auto observer = this->observer();
    return observer && observer->on_event(event);
  }
  [[nodiscard]] std::string prompt() const { return std::get<text::GenerationRequest>(payload).prompt; }
  [[nodiscard]] std::vector<int32_t> generated() const { return std::get<text::GenerationRequest>(payload).generated_ids; }
  const Payload payload;
  std::atomic<bool> cancelled{false};

 private:
  std::shared_ptr<RequestObserver> observer() {
    MutexLock lock(mutex_);
    return observer_;
  }
  Mutex mutex_;  // the queue's own thread may end a call while the test sends
  std::shared_ptr<RequestObserver> observer_ GUARDED_BY(mutex_);
};

class FakeWorkerClient final : public WorkerClient {
 public:
  Result<WorkerInfo> wait_ready(Deadline) override {
    if (not_ready) return *not_ready;
    return WorkerInfo{"Fake", 128, 4, 2};
  }
  std::shared_ptr<WorkerCall> start(const Payload& payload, std::shared_ptr<RequestObserver> observer) override {
    MutexLock lock(mutex_);
    calls_.push_back(std::make_shared<FakeCall>(payload, std::move(observer)));
    return calls_.back();
  }
  std::optional<Error> broken() override {
    MutexLock lock(mutex_);
    return broken_;
  }
  void break_down(const Error& why) {
    MutexLock lock(mutex_);
    broken_ = why;
  }
  bool drain(Deadline) override {
    drained = true;
    return true;
  }
  [[nodiscard]] std::vector<std::shared_ptr<FakeCall>> calls() const {
    MutexLock lock(mutex_);
    return calls_;
  }
  std::optional<Error> not_ready;
  std::atomic<bool> drained{false};

 private:
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<FakeCall>> calls_ GUARDED_BY(mutex_);
  std::optional<Error> broken_ GUARDED_BY(mutex_);
};

// What a client sees of its request.
class RecordingObserver final : public RequestObserver {
 public:
  bool on_event(const WorkerEvent& event) override {
    MutexLock lock(mutex_);
    text_ += event.bytes;
    return wants_more;
  }
  void on_done(const std::optional<Error>& failure) override {
    MutexLock lock(mutex_);
    ++times_done_;
    failure_ = failure;
    done_.notify_all();
  }
  // Waits for the end: "ok", or "CODE: MESSAGE".
  [[nodiscard]] std::string outcome() {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(10));
    while (times_done_ == 0) {
      if (!done_.wait(mutex_, deadline)) return "no end within 10 s";
    }
    return failure_ ? fmt::format("{}: {}", to_string(failure_->code()), failure_->message()) : "ok";
  }
  [[nodiscard]] std::string text() const {
    MutexLock lock(mutex_);
    return text_;
  }
  [[nodiscard]] int times_done() const {
    MutexLock lock(mutex_);
    return times_done_;
  }
  bool wants_more = true;

 private:
  mutable Mutex mutex_;
  CondVar done_;
  std::string text_ GUARDED_BY(mutex_);
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  int times_done_ GUARDED_BY(mutex_) = 0;
};

}  // namespace penstock::frontend
