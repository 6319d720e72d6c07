#include "engine/sampling_thread.h"

#include "kernels/parallel.h"

namespace penstock::engine {

SamplingThread::SamplingThread(Answer answer, seconds timeout, OnFailure on_failure)
    : answer_(std::move(answer)), timeout_(timeout), on_failure_(std::move(on_failure)), thread_([this] { loop(); }) {}

SamplingThread::~SamplingThread() {
  steps_.close();
  thread_.join();
}

void SamplingThread::put(StepPlan plan, at::Tensor logits) {
  const Put result = steps_.put({std::move(plan), std::move(logits)}, Deadline::after(timeout_));
  if (result == Put::kDone) return;
  throw_failure();
  throw error(Code::kDeadlineExceeded, "the last stage waited {} s for its sampling thread, which has {} steps to answer", timeout_.count(), kMostWaiting);
}

void SamplingThread::finish() {
  steps_.close();
  const Deadline deadline = Deadline::after(timeout_);
  {
    MutexLock lock(mutex_);
    while (!ended_) {
      if (!ended_changed_.wait(mutex_, deadline)) break;
    }
    if (!ended_) throw error(Code::kDeadlineExceeded, "the last stage waited {} s for the end of its sampling thread", timeout_.count());
  }
  throw_failure();
}

void SamplingThread::throw_failure() {
  MutexLock lock(mutex_);
  if (failure_) throw *failure_;
}

void SamplingThread::loop() {
  kernels::ThreadTeam alone(1);  // the cores belong to the next step
  const kernels::TeamScope scope(alone);
  std::optional<Error> failure;
  try {
    while (auto step = steps_.take(Deadline::never())) answer_(step->plan, step->logits);  // until put()'s thread closes it
  } catch (const Error& e) {
    failure = e;
  } catch (const std::exception& e) {
    failure = error(Code::kInternal, "{}", e.what());
  }
  {
    MutexLock lock(mutex_);
    ended_ = true;
    failure_ = failure;
    ended_changed_.notify_all();
  }
  steps_.close();
  if (failure && on_failure_) on_failure_(*failure);
}

}  // namespace penstock::engine
