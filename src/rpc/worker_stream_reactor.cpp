#include "rpc/worker_stream_reactor.h"

#include <exception>

#include "rpc/status_map.h"
#include "rpc/worker_messages.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::worker::v1;

// The front door reads as fast as it can. When so much waits and no write has ended for so long, it hangs.
constexpr size_t kManyWaitingBytes = 64 << 20;
constexpr seconds kLongestWrite{20};
// A request whose answer comes when so much waits is ended: its handler is faster than any reader.
constexpr size_t kMaxWaitingBytes = 256 << 20;

class GenerationSink final : public engine::EventSink {
 public:
  GenerationSink(std::shared_ptr<WorkerStream> stream, uint64_t id) : stream_(std::move(stream)), id_(id) {}
  bool push(engine::GenerationEvent event) override {
    std::optional<Error> failure;
    if (event.finished && event.reason == engine::FinishReason::kError) failure = event.error;
    return stream_->push(id_, failure ? end_event(*failure) : to_proto(event), event.finished);
  }

 private:
  const std::shared_ptr<WorkerStream> stream_;
  const uint64_t id_;
};

class AnswerSink final : public handler::AnswerSink {
 public:
  AnswerSink(std::shared_ptr<WorkerStream> stream, uint64_t id) : stream_(std::move(stream)), id_(id) {}
  bool push(handler::AnswerEvent event) override {
    auto failure = event.last ? event.failure : std::nullopt;
    if (!failure && event.head) failure = check_head(*event.head);
    const bool broken = failure && !event.last;
    return stream_->push(id_, failure ? end_event(*failure) : to_proto(event), event.last || broken) && !broken;
  }

 private:
  const std::shared_ptr<WorkerStream> stream_;
  const uint64_t id_;
};

std::shared_ptr<engine::EventSink> make_sink(engine::Engine&, std::shared_ptr<WorkerStream> stream, uint64_t id) {
  return std::make_shared<GenerationSink>(std::move(stream), id);
}
std::shared_ptr<handler::AnswerSink> make_sink(handler::Handler&, std::shared_ptr<WorkerStream> stream, uint64_t id) {
  return std::make_shared<AnswerSink>(std::move(stream), id);
}
text::GenerationRequest request_of(engine::Engine&, const pb::Command& command) { return from_proto(command.generate()); }
handler::Request request_of(handler::Handler&, const pb::Command& command) { return from_proto(command.predict()); }

size_t bytes_of(const pb::Event& event) { return 64 + event.ByteSizeLong(); }

}  // namespace

void WorkerStream::submit(pb::Command command, const Backend& backend, RunningRequest running) {
  const uint64_t id = command.id();
  {
    MutexLock lock(mutex_);
    if (outcome_) return;
    running_.emplace(id, Entry{std::move(running), nullptr});
    engine_ = backend.engine;
  }
  auto kept = std::make_shared<const pb::Command>(std::move(command));
  intake_.run([self = shared_from_this(), kept, backend] { self->take(*kept, backend); },
              [self = shared_from_this(), id](const Error& why) { self->refuse(id, why); });
}

void WorkerStream::take(const pb::Command& command, const Backend& backend) {
  {
    MutexLock lock(mutex_);
    if (!running_.contains(command.id())) return;  // cancelled while it waited
  }
  if (command.has_generate() && backend.engine) hand_over(command.id(), *backend.engine, command);
  else if (command.has_predict() && backend.handler) hand_over(command.id(), *backend.handler, command);
  else refuse(command.id(), Error(Code::kInternal, "the worker's model does not take this kind of request"));
}

template <typename Source>
void WorkerStream::hand_over(uint64_t id, Source& backend, const pb::Command& command) {
  try {
    auto submitted = backend.submit(request_of(backend, command), make_sink(backend, shared_from_this(), id));
    if (!submitted) return refuse(id, submitted.error());
    taken(id, [&backend, number = *submitted] { backend.cancel(number); });
  } catch (const std::exception& failure) {
    refuse(id, error(Code::kInternal, "the worker failed to take the request: {}", failure.what()));
  }
}

// Cancels at once what was given up while the backend took it.
void WorkerStream::taken(uint64_t id, std::function<void()> cancel) {
  {
    MutexLock lock(mutex_);
    if (const auto found = running_.find(id); found != running_.end()) {
      found->second.cancel = std::move(cancel);
      return;
    }
  }
  cancel();  // harmless if it has ended
}

void WorkerStream::refuse(uint64_t id, const Error& why) { (void)push(id, end_event(why), /*last=*/true); }

void WorkerStream::cancel(uint64_t id) {
  std::optional<Entry> entry;
  Next next = Next::kNothing;
  {
    MutexLock lock(mutex_);
    const auto found = running_.find(id);
    if (found == running_.end()) return;
    entry.emplace(std::move(found->second));
    running_.erase(found);
    next = advance();
  }
  if (entry->cancel) entry->cancel();
  entry.reset();  // before the stream may end
  act(next);
}

bool WorkerStream::push(uint64_t id, pb::Event event, bool last) {
  event.set_id(id);
  Next next = Next::kNothing;
  bool hangs = false, too_much = false;
  {
    MutexLock lock(mutex_);
    const auto found = running_.find(id);
    const bool refused = found == running_.end() && event.has_end();  // never began
    if (finished_ || (found == running_.end() && !refused)) return false;
    hangs = waiting_bytes_ > kManyWaitingBytes && writing_ && Clock::now() - write_began_ > kLongestWrite;
    too_much = waiting_bytes_ + bytes_of(event) > kMaxWaitingBytes && !event.has_end();
    if (too_much) {
      event = end_event(error(Code::kResourceExhausted, "{} bytes of answers wait to be sent: the handler answers faster than they are read", waiting_bytes_));
      event.set_id(id);
      last = true;
    }
    waiting_bytes_ += bytes_of(event);
    const bool ends = event.has_end();
    *waiting_.add_events() = std::move(event);
    if (last && !ends) {
      pb::Event& end = *waiting_.add_events();
      end.set_id(id);
      end.mutable_end();
    }
    if (last && found != running_.end()) {
      waiting_ends_.push_back(std::move(found->second.running));
      running_.erase(found);
    }
    next = advance();
  }
  act(next);
  if (hangs) abort(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the front door does not read: too much is waiting for it"));
  return !hangs && !too_much;
}

void WorkerStream::written(bool ok) {
  std::vector<RunningRequest> ended;  // destroyed without the lock
  Next next = Next::kNothing;
  {
    MutexLock lock(mutex_);
    ended.swap(sending_ends_);
    writing_ = false;
    next = advance();
  }
  ended.clear();  // before the stream may end
  act(next);
  if (!ok) abort(grpc::Status::CANCELLED);
}

void WorkerStream::finish(const grpc::Status& status) {
  Next next = Next::kNothing;
  {
    MutexLock lock(mutex_);
    if (!outcome_) outcome_ = status;
    next = advance();
  }
  act(next);
}

void WorkerStream::abort(const grpc::Status& status) {
  std::unordered_map<uint64_t, Entry> running;
  std::vector<RunningRequest> ended;
  Next next = Next::kNothing;
  {
    MutexLock lock(mutex_);
    running.swap(running_);
    ended.swap(waiting_ends_);
    waiting_.Clear();
    if (!outcome_) outcome_ = status;
    next = advance();
  }
  for (auto& [id, entry] : running) {
    if (entry.cancel) entry.cancel();
  }
  running.clear();
  ended.clear();
  act(next);
}

WorkerStream::Next WorkerStream::advance() {
  if (writing_ || finished_) return Next::kNothing;
  if (!waiting_.events().empty()) {
    sending_.Clear();
    sending_.Swap(&waiting_);
    sending_ends_.swap(waiting_ends_);
    waiting_bytes_ = 0;
    if (const auto stats = engine_ ? engine_->stats() : std::nullopt) fill(*sending_.mutable_stats(), *stats);
    writing_ = true;
    write_began_ = Clock::now();
    return Next::kWrite;
  }
  if (!outcome_ || !running_.empty()) return Next::kNothing;
  finished_ = true;
  return Next::kFinish;
}

void WorkerStream::act(Next next) {
  if (next == Next::kWrite) reactor_.StartWrite(&sending_);
  if (next != Next::kFinish) return;
  grpc::Status outcome;
  {
    MutexLock lock(mutex_);
    outcome = *outcome_;
  }
  reactor_.Finish(outcome);
}

}  // namespace penstock::rpc
