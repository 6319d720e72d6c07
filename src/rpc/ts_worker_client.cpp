#include "rpc/ts_worker_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "handler/batcher.h"
#include "rpc/http_message.h"

namespace penstock::rpc {
namespace {

constexpr milliseconds kLookUp{100};  // how often a wait for the worker looks whether the client is being destroyed
constexpr milliseconds kConnectAgain{20};

// The connection; its methods are called by the client's thread, end() by any.
class Connection {
 public:
  ~Connection() {
    if (fd_ >= 0) ::close(fd_);
  }
  // false: nobody listens there yet.
  [[nodiscard]] bool connect(const std::filesystem::path& socket) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = socket.string();
    if (path.size() >= sizeof address.sun_path) return false;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      ::close(fd);
      return false;
    }
    fd_ = fd;
    return true;
  }
  [[nodiscard]] std::optional<Error> send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
      else if (auto gone = wait_or_fail(POLLOUT)) return gone;
    }
    return std::nullopt;
  }
  [[nodiscard]] Result<std::string> read(size_t count) {
    std::string bytes;  // grows as bytes come: a length that lies costs nothing
    while (bytes.size() < count) {
      char piece[65536];
      const ssize_t got = ::recv(fd_, piece, std::min(sizeof piece, count - bytes.size()), 0);
      if (got > 0) bytes.append(piece, static_cast<size_t>(got));
      else if (got == 0) return Error(Code::kUnavailable, "the Python worker has closed its connection");
      else if (auto gone = wait_or_fail(POLLIN)) return *gone;
    }
    return bytes;
  }
  void end() { ended_ = true; }

 private:
  // After a call that would have blocked; an Error: it failed for another reason, or end() was called.
  std::optional<Error> wait_or_fail(short events) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      return error(Code::kUnavailable, "the connection to the Python worker is lost: {}", std::strerror(errno));
    }
    pollfd wanted{fd_, events, 0};
    while (::poll(&wanted, 1, static_cast<int>(kLookUp.count())) == 0) {
      if (ended_) break;
    }
    if (ended_) return Error(Code::kUnavailable, "the Python worker is being stopped");
    return std::nullopt;
  }

  int fd_ = -1;
  std::atomic<bool> ended_{false};
};

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
  TsWorkerClient(std::filesystem::path socket, TsLoad load, milliseconds max_batch_delay)
      : socket_(std::move(socket)), load_(std::move(load)), batcher_(static_cast<size_t>(load_.batch_size), max_batch_delay) {
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
    return frontend::WorkerInfo{"python: " + load_.handler, 0, load_.batch_size, 1};
  }

  std::shared_ptr<frontend::WorkerCall> start(const frontend::Payload& payload, std::shared_ptr<frontend::RequestObserver> observer) override
      EXCLUDES(mutex_) {
    const auto* request = std::get_if<handler::Request>(&payload);
    auto call = std::make_shared<TsCall>(weak_from_this(), request ? *request : handler::Request{}, std::move(observer));
    std::optional<Error> refused;
    {
      MutexLock lock(mutex_);
      if (!request) refused = Error(Code::kInternal, "a Python worker does not generate text");
      else if (failure_) refused = failure_;
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
        failure = predict(batch);
        for (const auto& call : batch) call->end(failure ? failure : Error(Code::kInternal, "the Python worker has not answered the request"));
      }
      MutexLock lock(mutex_);
      running_ = false;
      changed_.notify_all();
    }
    fail(*failure);
  }

  std::optional<Error> connect_and_load() EXCLUDES(mutex_) {
    while (!connection_.connect(socket_)) {
      MutexLock lock(mutex_);
      if (!stopping_) (void)changed_.wait(mutex_, Deadline::after(kConnectAgain));
      if (stopping_) return Error(Code::kUnavailable, "stopped before the Python worker listened");
    }
    if (auto gone = connection_.send(encode_load(load_))) return gone;
    const auto response = read_response(read_);
    if (!response) return response.error();
    if (response.value().code != 200) {
      return error(Code::kInternal, "its Python worker cannot load the model (code {}): {}", response.value().code, response.value().message);
    }
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

  // Until every request of the batch has its last answer. An Error: the connection is of no more use.
  std::optional<Error> predict(const Batch& batch) {
    std::vector<const handler::Request*> requests;
    std::map<std::string, std::shared_ptr<TsCall>> open;
    for (const auto& call : batch) {
      requests.push_back(&call->request);
      open.emplace(call->request.id, call);
    }
    if (auto gone = connection_.send(encode_predict(requests))) return gone;
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

  const std::filesystem::path socket_;
  const TsLoad load_;
  Connection connection_;
  const ReadBytes read_ = [this](size_t count) { return connection_.read(count); };
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

std::shared_ptr<frontend::WorkerClient> make_ts_worker_client(const std::filesystem::path& socket, TsLoad load, milliseconds max_batch_delay) {
  return std::make_shared<TsWorkerClient>(socket, std::move(load), max_batch_delay);
}

}  // namespace penstock::rpc
