#include "rpc/worker_client_reactor.h"

#include <utility>
#include <vector>

#include "rpc/status_map.h"
#include "rpc/worker_messages.h"

namespace penstock::rpc {

namespace pb = penstock::worker::v1;

WorkerStreamClient::WorkerStreamClient(pb::Worker::Stub& stub) {
  stub.async()->Work(context_.get(), this);
  AddHold();  // for writes from outside of gRPC's callbacks; OnReadDone(false) lets go
  StartRead(&received_);
  StartCall();
}

std::optional<uint64_t> WorkerStreamClient::start(pb::Command command, std::shared_ptr<frontend::RequestObserver> observer) {
  uint64_t id = 0;
  bool write = false;
  {
    MutexLock lock(mutex_);
    if (broken_) return std::nullopt;
    id = next_id_++;
    command.set_id(id);
    running_.emplace(id, std::move(observer));
    *waiting_.add_commands() = std::move(command);
    write = take_waiting();
  }
  if (write) StartWrite(&sending_);
  return id;
}

void WorkerStreamClient::cancel(uint64_t id) {
  std::shared_ptr<frontend::RequestObserver> observer;
  bool write = false;
  {
    MutexLock lock(mutex_);
    observer = take(id);
    if (!observer) return;
    if (!broken_) {
      pb::Command& command = *waiting_.add_commands();
      command.set_id(id);
      command.set_cancel(true);
      write = take_waiting();
    }
  }
  if (write) StartWrite(&sending_);
  observer->on_done(Error(Code::kCancelled, "the request was cancelled"));
}

void WorkerStreamClient::leave() {
  context_->TryCancel();
  {
    MutexLock lock(mutex_);
    while (!done_) changed_.wait(mutex_, Deadline::never());  // a cancelled call ends whatever the worker does
  }
  context_.reset();
}

void WorkerStreamClient::OnReadDone(bool ok) {
  if (ok) {
    if (received_.has_stats()) {
      MutexLock lock(mutex_);
      figures_ = from_proto(received_.stats());
    }
    for (pb::Event& event : *received_.mutable_events()) deliver(event);
    StartRead(&received_);
    return;
  }
  context_->TryCancel();  // when what came is no message of ours, the call has not ended
  {
    MutexLock lock(mutex_);
    broken_ = true;
    if (writing_) return;  // OnWriteDone lets go
  }
  RemoveHold();
}

void WorkerStreamClient::OnWriteDone(bool ok) {
  bool write = false;
  {
    MutexLock lock(mutex_);
    writing_ = false;
    if (!broken_) write = ok && take_waiting();
    if (!broken_ && !write) return;
  }
  if (write) StartWrite(&sending_);
  else RemoveHold();
}

void WorkerStreamClient::OnDone(const grpc::Status& status) {
  std::unordered_map<uint64_t, std::shared_ptr<frontend::RequestObserver>> left;
  {
    MutexLock lock(mutex_);
    left.swap(running_);
  }
  const Error why = status.ok() ? Error(Code::kUnavailable, "the worker has ended its stream") : to_error(status);
  for (auto& [id, observer] : left) observer->on_done(why);
  left.clear();
  MutexLock lock(mutex_);
  done_ = true;
  changed_.notify_all();
}

std::optional<frontend::EngineFigures> WorkerStreamClient::engine_figures() {
  MutexLock lock(mutex_);
  return figures_;
}

void WorkerStreamClient::deliver(pb::Event& event) {
  std::shared_ptr<frontend::RequestObserver> observer;
  {
    MutexLock lock(mutex_);
    if (event.has_end()) {
      observer = take(event.id());
    } else if (const auto found = running_.find(event.id()); found != running_.end()) {
      observer = found->second;
    }
  }
  if (!observer) return;  // cancelled meanwhile
  if (event.has_end()) {
    observer->on_done(event.end().code() == 0 ? std::nullopt : std::optional<Error>(to_error(event.end())));
  } else if (!observer->on_event(to_worker_event(event))) {
    cancel(event.id());
  }
}

bool WorkerStreamClient::take_waiting() {
  if (writing_ || waiting_.commands().empty()) return false;
  sending_.Clear();
  sending_.Swap(&waiting_);
  writing_ = true;
  return true;
}

std::shared_ptr<frontend::RequestObserver> WorkerStreamClient::take(uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return nullptr;
  auto observer = std::move(found->second);
  running_.erase(found);
  return observer;
}

}  // namespace penstock::rpc
