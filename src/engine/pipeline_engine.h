#pragma once
// The engine of a worker group's first rank: takes requests, plans steps, runs the first stage, and turns sampled ids into text.
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <thread>

#include "base/channel.h"
#include "comm/communicator.h"
#include "engine/batch_scheduler.h"
#include "engine/chunk_sizer.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/stage_link.h"
#include "engine/stage_runner.h"

namespace penstock::engine {

struct PipelineEngineOptions {
  int max_sequences = 8;
  int max_waiting = 256;
  int max_step_rows = 512;
  seconds timeout{60};  // of a wait within a step
};

// Note [Long prompts beside texts that stream]
// While any text streams, a step carries so many rows of prompts that it is predicted to take less than twice as long as without (ChunkSizer), and
// so no stream waits for its next token much longer than usual. While none does, a step carries max_step_rows.
//
// Note [Steps in flight]
// With p stages, up to p steps of disjoint sequences are under way. The loop fills the pipeline before it waits: only when no further step
// can be planned does it wait for the ids of the oldest. Ids come on a channel of their own, so no stage ever waits for the first one.
// A step that samples nothing has a piece of a prompt, whose next piece need not wait for it. The last stage answers it too, so that the first one is not
// further ahead than others can follow: up to p + 1 steps are under way then, and a request that ends costs no more than these.
//
// Threads:  one loop thread owns scheduler, generations, stage and link; requests reach it through a bounded channel.
// Errors:   the first failure of a step ends all generations with it; submit() answers kUnavailable from then on, and failure() tells.
// Lifetime: runner, stages and tokenizer outlive the engine. The destructor stops the loop and tells the other ranks to stop.
class PipelineEngine : public Engine {
 public:
  // `stages`: the leaders of all stages, this rank first. Makes the cache together with all ranks: throws as make_caches() does.
  PipelineEngine(StageRunner& runner, comm::Communicator& stages, text::Tokenizer tokenizer, const PipelineEngineOptions& options);
  ~PipelineEngine() override;

  [[nodiscard]] EngineInfo info() const override;
  [[nodiscard]] std::optional<EngineStats> stats() const override EXCLUDES(mutex_);
  [[nodiscard]] Result<RequestId> submit(const text::GenerationRequest& request, std::shared_ptr<EventSink> sink) override;
  void cancel(RequestId id) override;
  void drain() override;

  // Waits until the loop has ended by itself or the deadline has passed; the failure, if there is one.
  [[nodiscard]] std::optional<Error> wait_for_failure(Deadline deadline);
  // Steps computed so far: what a cancelled request no longer adds to.
  [[nodiscard]] int64_t steps() const { return steps_; }

 private:
  struct Submission {
    SequenceInput input;
    std::unique_ptr<Generation> generation;
  };
  // A new request, or without a submission the end of one.
  struct Message {
    RequestId id = 0;
    std::unique_ptr<Submission> submission;
  };
  struct InFlight {
    BatchScheduler::Step step;
    Clock::time_point start;
    std::vector<SampledToken> sampled;  // with one stage they are there at once
    int others_prompt_rows = 0;         // of steps that were in flight meanwhile
  };

  void loop();
  void run_until_closed();
  void take_messages();
  void handle(Message message);
  void launch(BatchScheduler::Step step);
  [[nodiscard]] bool may_launch() const;
  void complete_oldest();
  void observe(const InFlight& flight, double step_ms);
  [[nodiscard]] int prompt_rows() const;
  void hand_out(std::vector<BatchScheduler::Sampled> sampled, double step_ms);
  void publish_stats() EXCLUDES(mutex_);
  void tell_others(StepKind kind);
  void stop_others();
  void fail_all(const Error& error);
  [[nodiscard]] Result<SequenceInput> prepare(const text::GenerationRequest& request) const;
  [[nodiscard]] std::shared_ptr<const text::Grammar> kept(text::Grammar grammar) const;

  StageRunner& runner_;
  comm::Communicator& stages_;
  const text::Tokenizer tokenizer_;
  const PipelineEngineOptions options_;
  Channel<Message> messages_;
  std::atomic<uint64_t> next_id_{1};
  std::atomic<int> queued_{0};      // submitted and not yet ended: bounds the channel and the waiting queue together
  const std::shared_ptr<std::atomic<size_t>> grammar_bytes_ = std::make_shared<std::atomic<size_t>>(0);  // of those that requests keep
  std::atomic<bool> draining_{false};
  std::atomic<int64_t> steps_{0};

  // Owned by the loop thread.
  BatchScheduler scheduler_;
  ChunkSizer chunks_;
  StageLink link_;
  std::map<RequestId, std::unique_ptr<Generation>> generations_;
  std::deque<InFlight> in_flight_;
  Clock::time_point last_plan_ = Clock::now();

  mutable Mutex mutex_;
  EngineStats stats_ GUARDED_BY(mutex_);
  CondVar ended_changed_;
  bool ended_ GUARDED_BY(mutex_) = false;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace penstock::engine
