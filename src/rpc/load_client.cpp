#include "rpc/load_client.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "penstock/generate.grpc.pb.h"
#include "rpc/status_map.h"

namespace penstock::rpc {
namespace {

// One request. Deletes itself after `ended`.
class LoadStream final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  LoadStream(v1::GenerateRequest request, std::function<void(LoadStream&, LoadResult)> ended) : request_(std::move(request)), ended_(std::move(ended)) {}

  void start(v1::Generate::Stub& stub, const std::string& key, Deadline deadline) {
    if (!key.empty()) context_->AddMetadata("authorization", "Bearer " + key);
    context_->set_deadline(std::chrono::system_clock::now() + deadline.remaining());
    result_.sent = Clock::now();
    stub.async()->Generate(&*context_, &request_, this);
    StartRead(&message_);
    StartCall();
  }
  void cancel() { context_->TryCancel(); }
  // After the end. The context holds the channel, whose last owner must be none of gRPC's threads.
  void leave_channel() { context_.reset(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (message_.tokens_size() > 0) {
      result_.messages.push_back(Clock::now());
      result_.tokens.push_back(message_.tokens_size());
    }
    if (message_.has_finish()) {
      finished_ = true;
      result_.prompt_tokens = message_.finish().usage().prompt_tokens();
      result_.completion_tokens = message_.finish().usage().completion_tokens();
    }
    StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    if (!status.ok()) result_.failure = to_error(status);
    else if (!finished_ || result_.messages.empty()) result_.failure = Error(Code::kInternal, "the stream ended without tokens or without saying why");
    ended_(*this, std::move(result_));
    delete this;
  }

 private:
  const v1::GenerateRequest request_;
  const std::function<void(LoadStream&, LoadResult)> ended_;
  std::optional<grpc::ClientContext> context_{std::in_place};
  v1::GenerateResponse message_;
  LoadResult result_;
  bool finished_ = false;
};

}  // namespace

class LoadClient::Impl {
 public:
  Impl(ServerAddress server, LoadSampling sampling, int connections) : server_(std::move(server)), sampling_(std::move(sampling)) {
    for (int i = 0; i < connections; ++i) {
      channels_.push_back(make_channel(server_));
      stubs_.push_back(v1::Generate::NewStub(channels_.back()));
    }
  }
  ~Impl() {
    cancel_all();
    MutexLock lock(mutex_);
    while (!running_.empty()) changed_.wait(mutex_, Deadline::never());  // a cancelled call ends whatever the server does
  }

  bool connect(Deadline deadline) {
    return std::all_of(channels_.begin(), channels_.end(), [&](const auto& channel) { return rpc::connect(*channel, deadline); });
  }

  void send(const LoadPrompt& prompt, Deadline deadline, std::function<void(LoadResult)> done) {
    auto* stream = new LoadStream(request_of(prompt), [this, done = std::move(done)](LoadStream& ended, LoadResult result) {
      done(std::move(result));
      MutexLock lock(mutex_);
      ended.leave_channel();  // here, as once it is out of the set this client and its channels may go
      running_.erase(&ended);
      changed_.notify_all();
    });
    size_t connection = 0;
    {
      MutexLock lock(mutex_);
      running_.insert(stream);
      connection = next_++ % stubs_.size();
    }
    stream->start(*stubs_[connection], server_.key, deadline);
  }

  void cancel_all() {
    MutexLock lock(mutex_);  // a stream in the set lives; TryCancel() calls nobody back in this thread
    for (LoadStream* stream : running_) stream->cancel();
  }

 private:
  v1::GenerateRequest request_of(const LoadPrompt& prompt) const {
    v1::GenerateRequest request;
    request.set_model(sampling_.model);
    request.set_model_version(sampling_.version);
    if (prompt.ids.empty()) request.set_text(prompt.text);
    else request.mutable_token_ids()->mutable_ids()->Assign(prompt.ids.begin(), prompt.ids.end());
    request.mutable_sampling()->set_max_tokens(prompt.max_tokens);
    request.mutable_sampling()->set_temperature(sampling_.temperature);
    request.mutable_sampling()->set_ignore_eos(sampling_.ignore_eos);
    return request;
  }

  const ServerAddress server_;
  const LoadSampling sampling_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<v1::Generate::Stub>> stubs_;
  Mutex mutex_;
  CondVar changed_;
  std::unordered_set<LoadStream*> running_ GUARDED_BY(mutex_);
  size_t next_ GUARDED_BY(mutex_) = 0;
};

LoadClient::LoadClient(const ServerAddress& server, LoadSampling sampling, int connections)
    : impl_(std::make_unique<Impl>(server, std::move(sampling), connections)) {}
LoadClient::~LoadClient() = default;
bool LoadClient::connect(Deadline deadline) { return impl_->connect(deadline); }
void LoadClient::send(const LoadPrompt& prompt, Deadline deadline, std::function<void(LoadResult)> done) { impl_->send(prompt, deadline, std::move(done)); }
void LoadClient::cancel_all() { impl_->cancel_all(); }

}  // namespace penstock::rpc
