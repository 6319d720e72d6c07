#include "rpc/worker_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <thread>
#include <vector>

#include "base/channel.h"
#include "base/mutex.h"
#include "base/temp_dir.h"
#include "rpc/grpc_worker_client.h"

namespace penstock::rpc {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// An engine that keeps what it is given; the test sends the events.
class ScriptedEngine final : public engine::Engine {
 public:
  [[nodiscard]] engine::EngineInfo info() const override { return {"Scripted", 64, 3, 2}; }
  Result<engine::RequestId> submit(const text::GenerationRequest& request, std::shared_ptr<engine::EventSink> sink) override {
    if (request.prompt == "refuse") return Error(Code::kInvalidArgument, "prompt: refused");
    if (request.prompt == "throw") throw std::runtime_error("tensor trouble");
    if (request.prompt == "slow") {
      slow_begun.set_value();
      go_on.get_future().wait();
    }
    MutexLock lock(mutex_);
    requests_.push_back(request);
    sinks_.push_back(std::move(sink));
    changed_.notify_all();
    return sinks_.size();
  }
  void cancel(engine::RequestId id) override {
    MutexLock lock(mutex_);
    cancelled_.push_back(id);
    changed_.notify_all();
  }
  void drain() override { draining = true; }

  // Waits for the i-th request.
  std::shared_ptr<engine::EventSink> sink(size_t i) {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(10));
    while (sinks_.size() <= i) {
      if (!changed_.wait(mutex_, deadline)) throw std::runtime_error("the request did not come within 10 s");
    }
    return sinks_[i];
  }
  bool wait_cancelled(engine::RequestId id) {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(10));
    while (std::find(cancelled_.begin(), cancelled_.end(), id) == cancelled_.end()) {
      if (!changed_.wait(mutex_, deadline)) return false;
    }
    return true;
  }
  text::GenerationRequest request(size_t i) {
    MutexLock lock(mutex_);
    return requests_.at(i);
  }
  std::atomic<bool> draining{false};
  std::promise<void> slow_begun, go_on;  // for a request that is slow to take

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<text::GenerationRequest> requests_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<engine::EventSink>> sinks_ GUARDED_BY(mutex_);
  std::vector<engine::RequestId> cancelled_ GUARDED_BY(mutex_);
};

// A handler that keeps what it is given; the test sends the events.
class ScriptedHandler final : public handler::Handler {
 public:
  [[nodiscard]] handler::HandlerInfo info() const override { return {"scripted", 5}; }
  Result<handler::RequestId> submit(handler::Request request, std::shared_ptr<handler::AnswerSink> sink) override {
    if (request.id == "refuse") return Error(Code::kInvalidArgument, "refused");
    (void)taken.try_put({std::move(request), std::move(sink)});
    return handler::RequestId{7};
  }
  void cancel(handler::RequestId id) override { (void)cancelled.try_put(std::move(id)); }
  void drain() override { draining = true; }

  struct Taken {
    handler::Request request;
    std::shared_ptr<handler::AnswerSink> sink;
  };
  Channel<Taken> taken{16};
  Channel<handler::RequestId> cancelled{16};
  std::atomic<bool> draining{false};
};

engine::GenerationEvent piece(const std::string& text) {
  engine::GenerationEvent event;
  event.text = text;
  event.token_id = 7;
  event.step_ms = 1.5;
  return event;
}

engine::GenerationEvent last(const std::string& text, engine::FinishReason reason) {
  engine::GenerationEvent event = piece(text);
  event.finished = true;
  event.reason = reason;
  event.usage = {5, 3};
  return event;
}

text::GenerationRequest words(const std::string& prompt) {
  text::GenerationRequest request;
  request.prompt = prompt;
  return request;
}

// Receives an answer on the front door's side.
class Receiver final : public frontend::RequestObserver {
 public:
  bool on_event(const frontend::WorkerEvent& event) override {
    MutexLock lock(mutex_);
    while (blocked_) changed_.wait(mutex_, Deadline::never());
    if (event.head) text_ += fmt::format("<{} {} {}>", event.head->status, event.head->content_type, event.head->headers.size());
    text_ += event.bytes;
    if (event.last) text_ += "<last>";
    if (event.finished) text_ += fmt::format("<{} {}+{}>", event.finished->reason, event.finished->prompt_tokens, event.finished->completion_tokens);
    changed_.notify_all();
    return true;
  }
  void on_done(const std::optional<Error>& failure) override {
    MutexLock lock(mutex_);
    text_ += failure ? fmt::format("[{}: {}]", to_string(failure->code()), failure->message()) : "[ok]";
    done_ = true;
    changed_.notify_all();
  }
  std::string wait_done() {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(10));
    while (!done_) {
      if (!changed_.wait(mutex_, deadline)) return text_ + "(no end within 10 s)";
    }
    return text_;
  }
  void block(bool on) {
    MutexLock lock(mutex_);
    blocked_ = on;
    changed_.notify_all();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::string text_ GUARDED_BY(mutex_);
  bool blocked_ GUARDED_BY(mutex_) = false;
  bool done_ GUARDED_BY(mutex_) = false;
};

class WorkerServiceTest : public testing::Test {
 protected:
  std::shared_ptr<frontend::WorkerCall> generate(const std::string& prompt) {
    text::GenerationRequest request;
    request.prompt = prompt;
    request.sampling.max_tokens = 12;
    request.sampling.temperature = 0.5;
    request.sampling.seed = 9;
    request.sampling.stop = {"\n"};
    request.sampling.ignore_eos = true;
    request.prompt_ids = {7, 8};
    request.is_chat = true;
    return client->start(request, receiver);
  }
  TempDir dir_;
  ScriptedEngine engine;
  std::unique_ptr<WorkerService> service = std::move(WorkerService::start(dir_.path() / "w.sock")).value();
  std::shared_ptr<frontend::WorkerClient> client = make_grpc_worker_client(dir_.path() / "w.sock");
  std::shared_ptr<Receiver> receiver = std::make_shared<Receiver>();
};

TEST_F(WorkerServiceTest, WaitReadyWaitsUntilTheEngineIsThere) {
  const auto early = client->wait_ready(Deadline::after(milliseconds(50)));
  ASSERT_FALSE(early.ok());
  EXPECT_EQ(early.error().code(), Code::kDeadlineExceeded);
  std::thread loader([&] { service->set_engine(engine); });
  const auto info = client->wait_ready(Deadline::after(seconds(10)));
  loader.join();
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info.value().architecture, "Scripted");
  EXPECT_EQ(info.value().max_sequence_tokens, 64);
  EXPECT_EQ(info.value().max_concurrent, 3);
  EXPECT_EQ(info.value().num_stages, 2);
}

TEST_F(WorkerServiceTest, AFailedLoadIsToldAndNeverSoundsTemporary) {
  service->set_failed(Error(Code::kUnavailable, "rank 1 is gone"));
  const auto info = client->wait_ready(Deadline::after(seconds(10)));
  ASSERT_FALSE(info.ok());
  EXPECT_EQ(info.error().code(), Code::kInternal);
  EXPECT_EQ(info.error().message(), "rank 1 is gone");
}

TEST_F(WorkerServiceTest, ARequestAndItsEventsCrossUnchanged) {
  service->set_engine(engine);
  const auto call = generate("h\u00e9llo");
  const auto sink = engine.sink(0);
  const auto request = engine.request(0);
  EXPECT_EQ(request.prompt, "h\u00e9llo");
  EXPECT_EQ(request.sampling.max_tokens, 12);
  EXPECT_EQ(request.sampling.temperature, 0.5);
  EXPECT_EQ(request.sampling.seed, 9u);
  EXPECT_EQ(request.sampling.stop, std::vector<std::string>{"\n"});
  EXPECT_TRUE(request.sampling.ignore_eos);
  EXPECT_EQ(request.prompt_ids, (std::vector<int32_t>{7, 8}));
  EXPECT_TRUE(request.is_chat);
  EXPECT_TRUE(sink->push(piece("a")));
  EXPECT_TRUE(sink->push(piece("b")));
  EXPECT_TRUE(sink->push(last("c", engine::FinishReason::kLength)));
  EXPECT_EQ(receiver->wait_done(), "abc<length 5+3>[ok]");
}

TEST_F(WorkerServiceTest, CancellingTheCallCancelsInTheEngine) {
  service->set_engine(engine);
  const auto call = generate("x");
  const auto sink = engine.sink(0);
  EXPECT_TRUE(sink->push(piece("a")));
  call->cancel();
  EXPECT_TRUE(engine.wait_cancelled(1));
  EXPECT_FALSE(sink->push(piece("b"))) << "the engine is told to drop it";
  EXPECT_THAT(receiver->wait_done(), HasSubstr("[cancelled"));
}

TEST_F(WorkerServiceTest, WhileARequestIsTakenOthersAreCancelledAndItsOwnCancelIsKept) {
  service->set_engine(engine);
  const auto running = generate("x");
  const auto sink = engine.sink(0);
  const auto slow = client->start(words("slow"), std::make_shared<Receiver>());
  engine.slow_begun.get_future().wait();
  const auto behind = client->start(words("behind"), std::make_shared<Receiver>());
  behind->cancel();
  slow->cancel();
  running->cancel();
  EXPECT_TRUE(engine.wait_cancelled(1)) << "and then the two before it were read, too";
  EXPECT_FALSE(sink->push(piece("b")));
  auto last_one = std::make_shared<Receiver>();
  const auto later = client->start(words("later"), last_one);
  engine.go_on.set_value();
  EXPECT_TRUE(engine.wait_cancelled(2)) << "the slow one, as soon as the engine has it";
  EXPECT_TRUE(engine.sink(2)->push(last("c", engine::FinishReason::kLength)));
  EXPECT_THAT(last_one->wait_done(), HasSubstr("c<length"));
  EXPECT_EQ(engine.request(2).prompt, "later") << "one that was cancelled before its turn never comes to the engine";
}

TEST_F(WorkerServiceTest, RefusedThrownAndFailedRequestsEndWithTheirErrors) {
  service->set_engine(engine);
  (void)generate("refuse");
  EXPECT_EQ(receiver->wait_done(), "[invalid argument: prompt: refused]");
  receiver = std::make_shared<Receiver>();
  (void)generate("throw");
  EXPECT_THAT(receiver->wait_done(), HasSubstr("tensor trouble"));
  receiver = std::make_shared<Receiver>();
  (void)generate("fail later");
  auto event = last("", engine::FinishReason::kError);
  event.error = Error(Code::kDataLoss, "NaN in layer 3");
  (void)engine.sink(0)->push(event);
  EXPECT_EQ(receiver->wait_done(), "[data loss: NaN in layer 3]");
}

TEST_F(WorkerServiceTest, BeforeTheModelIsLoadedNothingIsTaken) {
  (void)generate("x");
  EXPECT_THAT(receiver->wait_done(), StartsWith("[unavailable"));
}

TEST_F(WorkerServiceTest, AReaderThatDoesNotReadIsCutOff) {
  service->set_engine(engine);
  receiver->block(true);
  const auto call = generate("x");
  const auto sink = engine.sink(0);
  const std::string big(16384, 'x');
  int sent = 0;
  while (sent < 20000 && sink->push(piece(big))) ++sent;
  EXPECT_LT(sent, 20000);
  EXPECT_GE(sent, 1024) << "so many may wait";
  receiver->block(false);
  EXPECT_THAT(receiver->wait_done(), HasSubstr("[resource exhausted"));
}

TEST_F(WorkerServiceTest, DrainWaitsForWhatRunsAndRefusesNewRequests) {
  service->set_engine(engine);
  const auto call = generate("x");
  const auto sink = engine.sink(0);
  EXPECT_FALSE(client->drain(Deadline::after(milliseconds(50)))) << "one still runs";
  EXPECT_TRUE(engine.draining);
  const auto late = std::make_shared<Receiver>();
  (void)client->start(words("late"), late);
  EXPECT_THAT(late->wait_done(), StartsWith("[unavailable"));
  (void)sink->push(last("end", engine::FinishReason::kStop));
  EXPECT_TRUE(client->drain(Deadline::after(seconds(10))));
  EXPECT_EQ(receiver->wait_done(), "end<stop 5+3>[ok]");
}

class HandlerServiceTest : public WorkerServiceTest {
 protected:
  HandlerServiceTest() { service->set_handler(handler); }
  ~HandlerServiceTest() override { service.reset(); }  // which tells the handler of what it cancels, until its end
  ScriptedHandler::Taken begin(handler::Request request) {
    call = client->start(std::move(request), receiver);
    return std::move(*handler.taken.take(Deadline::after(seconds(10))));
  }
  ScriptedHandler handler;
  std::shared_ptr<frontend::WorkerCall> call;
};

TEST_F(HandlerServiceTest, ARequestOfBytesAndItsAnswerCrossUnchanged) {
  const std::string bytes("\0\xFF not UTF-8", 13);
  EXPECT_EQ(client->wait_ready(Deadline::after(seconds(10))).value().architecture, "scripted");
  auto [request, sink] = begin({"id-1", {{"A", "1"}, {"A", bytes}}, {{"data", "image/png", bytes}, {bytes, "", ""}}});
  EXPECT_EQ(request.id, "id-1");
  ASSERT_EQ(request.headers.size(), 2u);
  EXPECT_EQ(request.headers[1].second, bytes);
  ASSERT_EQ(request.parts.size(), 2u);
  EXPECT_EQ(request.parts[0].content_type, "image/png");
  EXPECT_EQ(request.parts[0].bytes, bytes);
  EXPECT_EQ(request.parts[1].name, bytes);
  EXPECT_TRUE(sink->push({handler::AnswerHead{201, "text/plain", {{"B", "2"}}}, "one ", false, {}}));
  EXPECT_TRUE(sink->push({std::nullopt, "two", true, {}}));
  EXPECT_EQ(receiver->wait_done(), "<201 text/plain 1>one two<last>[ok]");
}

TEST_F(HandlerServiceTest, RefusedFailedAndBrokenAnswersEndWithTheirErrors) {
  (void)client->start(handler::Request{"refuse", {}, {}}, receiver);
  EXPECT_EQ(receiver->wait_done(), "[invalid argument: refused]");
  receiver = std::make_shared<Receiver>();
  auto failing = begin({"a", {}, {}});
  EXPECT_TRUE(failing.sink->push({std::nullopt, "", true, Error(Code::kDataLoss, "NaN")}));
  EXPECT_EQ(receiver->wait_done(), "[data loss: NaN]");
  receiver = std::make_shared<Receiver>();
  auto broken = begin({"b", {}, {}});
  EXPECT_FALSE(broken.sink->push({handler::AnswerHead{7, "", {}}, "x", false, {}}));
  EXPECT_THAT(receiver->wait_done(), HasSubstr("[internal: the handler answers with status 7"));
}

TEST_F(HandlerServiceTest, CancellingTheCallIsToldToTheHandler) {
  auto [request, sink] = begin({"a", {}, {}});
  call->cancel();
  EXPECT_EQ(handler.cancelled.take(Deadline::after(seconds(10))), 7u);
  EXPECT_FALSE(sink->push({handler::AnswerHead{}, "late", false, {}}));
  EXPECT_THAT(receiver->wait_done(), HasSubstr("[cancelled"));
}

TEST_F(HandlerServiceTest, TakesNoTextAndAnEngineTakesNoBytes) {
  (void)generate("x");
  EXPECT_THAT(receiver->wait_done(), HasSubstr("does not take this kind of request"));
}

TEST_F(HandlerServiceTest, DrainIsToldToTheHandler) {
  auto [request, sink] = begin({"a", {}, {}});
  EXPECT_FALSE(client->drain(Deadline::after(milliseconds(50))));
  EXPECT_TRUE(handler.draining);
  (void)sink->push({handler::AnswerHead{}, "end", true, {}});
  EXPECT_TRUE(client->drain(Deadline::after(seconds(10))));
}

TEST_F(WorkerServiceTest, ALostWorkerEndsItsCallsAsUnavailable) {
  service->set_engine(engine);
  const auto call = generate("x");
  (void)engine.sink(0);
  service.reset();
  EXPECT_THAT(receiver->wait_done(), testing::AnyOf(HasSubstr("[unavailable"), HasSubstr("[cancelled")));
}

// Reports the end, then keeps gRPC's thread for a while.
class LingeringObserver final : public frontend::RequestObserver {
 public:
  bool on_event(const frontend::WorkerEvent&) override { return true; }
  void on_done(const std::optional<Error>&) override {
    done.close();
    std::this_thread::sleep_for(milliseconds(100));
  }
  Channel<int> done{1};
};

TEST(WorkerService, AClientMayGoAsSoonAsItsCallHasReported) {
  TempDir dir;
  for (int round = 0; round < 3; ++round) {
    const auto socket = dir.path() / fmt::format("{}.sock", round);
    ScriptedEngine engine;
    auto service = std::move(WorkerService::start(socket)).value();
    service->set_engine(engine);
    auto client = make_grpc_worker_client(socket);
    const auto observer = std::make_shared<LingeringObserver>();
    const std::weak_ptr<frontend::WorkerCall> call = client->start(words("x"), observer);
    (void)engine.sink(0)->push(last("end", engine::FinishReason::kStop));
    EXPECT_EQ(observer->done.take(Deadline::after(seconds(10))), std::nullopt);
    ASSERT_TRUE(observer->done.closed());
    // Both go while gRPC's thread is still in on_done(): that thread must not be left with the last reference to anything of gRPC's.
    client.reset();
    service.reset();
    const Deadline deadline = Deadline::after(seconds(10));
    while (!call.expired() && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
    EXPECT_TRUE(call.expired());
    std::this_thread::sleep_for(milliseconds(50));  // for a wrong thread to fall over what it has freed
  }
}

TEST(WorkerService, ASocketPathThatIsTooLongIsRefused) {
  const auto service = WorkerService::start("/tmp/" + std::string(200, 'x'));
  ASSERT_FALSE(service.ok());
  EXPECT_THAT(service.error().message(), HasSubstr("TMPDIR"));
}

}  // namespace
}  // namespace penstock::rpc
