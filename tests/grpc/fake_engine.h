#pragma once
// An engine without a model: it says the words of the prompt, over and over, one at each step.
#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "engine/engine.h"

namespace penstock::tests {

struct FakeEngineOptions {
  int max_concurrent = 8;
  int max_sequence_tokens = 4096;  // a word is a token
  std::chrono::microseconds step{5000};
  bool spread = false;             // the requests of a step are served one after the other over its time, not all at its end
};

// Token ids are words, too. A prompt that begins with one of these words is played by its rule:
//   [hang]   nothing is ever sent          [big]    every piece is 16 KiB
//   [crash]  the process aborts            [error]  the generation ends with an INTERNAL error
//   [clock]  every piece is the monotonic clock in nanoseconds; ends are not printed
//   [say] TEXT  characters of the text, once
//   [constrained] characters of a text that fits the request's constraint, drawn at random from its seed
//   [sampling] the words are what the request asks for: min_tokens=0, ..., salt=...
// Every end is printed on stderr: "request 3 cancelled after 7 steps".
//
// Threads: as engine::Engine; one thread of its own makes the steps.
class FakeEngine final : public engine::Engine {
 public:
  explicit FakeEngine(FakeEngineOptions options);
  ~FakeEngine() override;

  [[nodiscard]] engine::EngineInfo info() const override;
  // Of 10 pages, each request that it has holds one; every prompt was looked for, and its first token found.
  [[nodiscard]] std::optional<engine::EngineStats> stats() const override;
  [[nodiscard]] Result<engine::RequestId> submit(const text::GenerationRequest& request, std::shared_ptr<engine::EventSink> sink) override;
  void cancel(engine::RequestId id) override;
  void drain() override;

 private:
  struct Running {
    engine::RequestId id = 0;
    text::GenerationRequest request;
    std::shared_ptr<engine::EventSink> sink;
    std::vector<std::string> words;
    bool once = false;  // the words are characters, said once
    int steps = 0;
    bool cancelled = false;
  };
  void loop();
  [[nodiscard]] bool step(Running& request) const;

  const FakeEngineOptions options_;
  mutable Mutex mutex_;
  engine::EngineStats stats_ GUARDED_BY(mutex_);
  CondVar stop_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  bool draining_ GUARDED_BY(mutex_) = false;
  engine::RequestId next_id_ GUARDED_BY(mutex_) = 1;
  std::deque<std::shared_ptr<Running>> requests_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace penstock::tests
