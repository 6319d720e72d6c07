#include "rpc/ts_worker_client.h"

#include <exception>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/uuid.h"
#include "handler/batcher.h"
#include "rpc/http_message.h"
#include "rpc/ts_connection.h"

namespace penstock::rpc {
namespace {

constexpr milliseconds kConnectAgain{20};

class TsWorkerClient;

// One request. Its observer is called by whoever takes it, once for the end.
class TsCall final : public frontend::WorkerCall, public std::enable_shared_from_this<TsCall> {
 public:
  TsCall(std::weak_ptr<TsWorkerClient> client, handler::Request call_request, std::shared_ptr<frontend::RequestObserver> observer)
      : request(std::move(call_request)), client_(std::move(client)), observer_(std::move(observer)) {}
  void cancel() override;

  void answer(TsAnswer answer) EXCLUDES(mutex_) {
    const auto observer = current();
    if (!observer) return;
    frontend::WorkerEvent event;
    if (!std::exchange(begun_, true)) event.head = std::move(answer.head);
    event.bytes = std::move(answer.bytes);
    event.last = answer.last;
    if (!observer->on_event(event)) return end(Error(Code::kCancelled, "the reader is gone or too slow"));
    if (answer.last) end(std::nullopt);
  }
  void end(const std::optional<Error>& failure) EXCLUDES(mutex_) {
    std::shared_ptr<frontend::RequestObserver> observer;
    {
      MutexLock lock(mutex_);
      observer = std::exchange(observer_, nullptr);
    }
    if (observer) observer->on_done(failure);
  }

  const handler::Request request;
  uint64_t number = 0;  // written before others see the call

 private:
  std::shared_ptr<frontend::RequestObserver> current() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return observer_;
  }
  const std::weak_ptr<TsWorkerClient> client_;
  bool begun_ = false;  // owned by the client's thread
  Mutex mutex_;
  std::shared_ptr<frontend::RequestObserver> observer_ GUARDED_BY(mutex_);
};

class TsWorkerClient final : public frontend::WorkerClient, public std::enable_shared_from_this<TsWorkerClient> {
 public:
  TsWorkerClient(std::vector<std::filesystem::path> sockets, TsAudience audience, TsLoad load, milliseconds max_batch_delay)
      : load_(std::move(load)),
        audience_(audience),
        connection_(std::move(sockets)),
        batcher_(static_cast<size_t>(load_.batch_size), max_batch_delay) {
    thread_ = std::thread([this] { run(); });
  }
  ~TsWorkerClient() override {
    {
      MutexLock lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    connection_.end();
    thread_.join();
  }

  Result<frontend::WorkerInfo> wait_ready(Deadline deadline) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!loaded_ && !failure_) {
      if (!changed_.wait(mutex_, deadline)) return Error(Code::kDeadlineExceeded, "the Python worker has not loaded its model yet");
    }
    if (failure_) return *failure_;
    return frontend::WorkerInfo{"python: " + load_.handler, 0, load_.batch_size, static_cast<int>(connection_.num_ranks())};
  }

  std::shared_ptr<frontend::WorkerCall> start(const frontend::Payload& payload, std::shared_ptr<frontend::RequestObserver> observer) override
      EXCLUDES(mutex_) {
    const auto* request = std::get_if<handler::Request>(&payload);
    auto call = std::make_shared<TsCall>(weak_from_this(), request ? *request : handler::Request{}, std::move(observer));
    auto refused = request ? check_ts_request(*request) : Error(Code::kInternal, "a Python worker does not generate text");
    if (!refused) {
      MutexLock lock(mutex_);
      if (failure_) refused = failure_;
      else if (draining_ || !loaded_) refused = Error(Code::kUnavailable, "the Python worker takes no requests: it is loading, or stopping");
      if (!refused) {
        call->number = next_number_++;
        calls_.emplace(call->number, call);
        batcher_.add(call->number, "", Clock::now());
        changed_.notify_all();
      }
    }
    if (refused) call->end(*refused);
    return call;
  }

  std::optional<Error> broken() override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return failure_;
  }

  bool drain(Deadline deadline) override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    draining_ = true;
    while (!failure_ && (batcher_.size() > 0 || running_)) {
      if (!changed_.wait(mutex_, deadline)) return false;
    }
    return !failure_;
  }

  // It never runs, if it does not run yet.
  void forget(uint64_t number) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    batcher_.remove(number);
    calls_.erase(number);
    changed_.notify_all();
  }

 private:
  using Batch = std::vector<std::shared_ptr<TsCall>>;

  void run() EXCLUDES(mutex_) {
    auto failure = connect_and_load();
    while (!failure) {
      Batch batch = next_batch();
      if (batch.empty()) {
        failure = Error(Code::kUnavailable, "the Python worker is being stopped");
      } else {
        failure = predict_or_fail(batch);
        for (const auto& call : batch) call->end(failure ? failure : Error(Code::kInternal, "the Python worker has not answered the request"));
      }
      MutexLock lock(mutex_);
      running_ = false;
      changed_.notify_all();
    }
    fail(*failure);
  }

  std::optional<Error> connect_and_load() EXCLUDES(mutex_) {
    while (!connection_.connect()) {
      MutexLock lock(mutex_);
      if (!stopping_) (void)changed_.wait(mutex_, Deadline::after(kConnectAgain));
      if (stopping_) return Error(Code::kUnavailable, "stopped before the Python worker listened");
    }
    const std::string message = encode_load(load_);
    for (size_t rank = 0; rank < connection_.num_ranks(); ++rank) {  // all at once: they may wait for each other while they load
      if (auto gone = connection_.send(rank, message)) return gone;
    }
    for (size_t rank = 0; rank < connection_.num_ranks(); ++rank) {
      const auto response = read_response([this, rank](size_t count) { return connection_.read(rank, count); });
      if (!response) return response.error();
      if (response.value().code == 200) continue;
      const std::string whose = connection_.num_ranks() > 1 ? fmt::format("rank {} of its Python worker", rank) : "its Python worker";
      return error(Code::kInternal, "{} cannot load the model (code {}): {}", whose, response.value().code, response.value().message);
    }
    connection_.hear_first_only();
    MutexLock lock(mutex_);
    loaded_ = true;
    changed_.notify_all();
    return std::nullopt;
  }

  // Waits for a batch that is due; empty: the client is being destroyed.
  Batch next_batch() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    Batch batch;
    while (!stopping_ && batch.empty()) {
      for (const uint64_t number : batcher_.take(Clock::now())) batch.push_back(std::move(calls_.extract(number).mapped()));
      if (!batch.empty()) break;
      const auto due = batcher_.next_due();
      (void)changed_.wait(mutex_, due ? Deadline::at(*due) : Deadline::never());
    }
    running_ = !batch.empty();
    return batch;
  }

  // What cannot be sent (too long for the protocol), or no memory for it, is the end of this batch and of the connection.
  std::optional<Error> predict_or_fail(const Batch& batch) {
    try {
      return predict(batch);
    } catch (const std::exception& failure) {
      return error(Code::kInternal, "the requests could not be handed to the Python worker: {}", failure.what());
    }
  }

  // Until every request of the batch has its last answer. An Error: the connection is of no more use.
  std::optional<Error> predict(const Batch& batch) {
    std::vector<TsRequest> requests;
    std::map<std::string, std::shared_ptr<TsCall>> open;
    for (const auto& call : batch) {
      std::string id = call->request.id;  // a client's own, which another may use too
      while (!open.emplace(id, call).second) id = make_uuid();
      requests.push_back({std::move(id), &call->request});
    }
    const std::string message = encode_predict(requests);
    const size_t audience = audience_ == TsAudience::kAllRanks ? connection_.num_ranks() : 1;
    for (size_t rank = 0; rank < audience; ++rank) {
      if (auto gone = connection_.send(rank, message)) return gone;
    }
    while (!open.empty()) {
      auto response = read_response(read_);
      if (!response) return response.error();
      if (response->code != 200) {
        for (const auto& [id, call] : open) call->answer(failed_answer(*response));
        return std::nullopt;
      }
      bool more = false;
      for (TsAnswer& answer : response->answers) {
        const auto found = open.find(answer.request);
        if (found == open.end()) return error(Code::kInternal, "the Python worker has answered '{}', which it does not run", answer.request.substr(0, 64));
        const bool last = answer.last;
        found->second->answer(std::move(answer));
        if (last) open.erase(found);
        more = more || !last;
      }
      if (!more) return std::nullopt;  // those without an answer are told so
    }
    return std::nullopt;
  }

  // As TorchServe answers what its worker could not.
  static TsAnswer failed_answer(const TsResponse& response) {
    const HttpResponse http = error_response(response.code >= 400 && response.code < 600 ? response.code : 500, "InternalServerException",
                                             response.message);
    return {"", {http.status, http.content_type, {}}, http.body, true};
  }

  void fail(const Error& failure) EXCLUDES(mutex_) {
    std::map<uint64_t, std::shared_ptr<TsCall>> waiting;
    {
      MutexLock lock(mutex_);
      failure_ = failure;
      waiting.swap(calls_);
      changed_.notify_all();
    }
    for (const auto& [number, call] : waiting) call->end(failure);
  }

  const TsLoad load_;
  const TsAudience audience_;
  TsConnection connection_;
  const ReadBytes read_ = [this](size_t count) { return connection_.read(0, count); };
  Mutex mutex_;
  CondVar changed_;
  handler::Batcher batcher_ GUARDED_BY(mutex_);
  std::map<uint64_t, std::shared_ptr<TsCall>> calls_ GUARDED_BY(mutex_);  // that wait
  uint64_t next_number_ GUARDED_BY(mutex_) = 1;
  bool loaded_ GUARDED_BY(mutex_) = false;
  bool running_ GUARDED_BY(mutex_) = false;
  bool draining_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the members above
};

void TsCall::cancel() {
  if (const auto client = client_.lock()) client->forget(number);
  end(Error(Code::kCancelled, "the request was cancelled"));
}

}  // namespace

std::shared_ptr<frontend::WorkerClient> make_ts_worker_client(std::vector<std::filesystem::path> sockets, TsAudience audience, TsLoad load,
                                                              milliseconds max_batch_delay) {
  PENSTOCK_CHECK(!sockets.empty(), "a Python worker without a socket");
  return std::make_shared<TsWorkerClient>(std::move(sockets), audience, std::move(load), max_batch_delay);
}

}  // namespace penstock::rpc
