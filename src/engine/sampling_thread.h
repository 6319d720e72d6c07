#pragma once
// Answers the last of several stages' steps while that stage computes the next ones.
//
// Note [Sampling beside the next step]
// Steps in flight have disjoint sequences, so that a step does not need what the one before it samples. What sampling knows of sequences it learns from the plans of
// all steps (StepSampler), so that the two threads share nothing but the queue between them. With one stage there is one step at a time, whose tokens
// the next one needs: sampling then stays on the thread that computes.
#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <thread>

#include "base/channel.h"
#include "base/error.h"
#include "engine/step_plan.h"

namespace penstock::engine {

// Threads:  put() and finish() by one thread; answer() runs on a thread of its own, which sleeps while there is no step. Its loops are not shared out.
// Blocking: put() when kMostWaiting steps wait, and finish(): at most `timeout`.
// Errors:   what answer() throws is told to `on_failure` at once, on its thread, and the next put() or finish() throws it; later steps are then not answered.
class SamplingThread {
 public:
  // The logits may be changed.
  using Answer = std::function<void(const StepPlan& plan, const at::Tensor& logits)>;
  static constexpr int kMostWaiting = 64;

  using OnFailure = std::function<void(const Error&)>;  // may be empty

  SamplingThread(Answer answer, seconds timeout, OnFailure on_failure = {});
  // Answers what has been put, however long that takes.
  ~SamplingThread();
  SamplingThread(const SamplingThread&) = delete;
  SamplingThread& operator=(const SamplingThread&) = delete;

  void put(StepPlan plan, at::Tensor logits);
  // All have been answered. No put() after it.
  void finish();

 private:
  struct Step {
    StepPlan plan;
    at::Tensor logits;
  };
  void loop();
  void throw_failure() EXCLUDES(mutex_);

  const Answer answer_;
  const seconds timeout_;
  const OnFailure on_failure_;
  Channel<Step> steps_{kMostWaiting};
  Mutex mutex_;
  CondVar ended_changed_;
  bool ended_ GUARDED_BY(mutex_) = false;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace penstock::engine
