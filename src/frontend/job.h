#pragma once
// One request between the client's observer and a worker's call. Only JobQueue makes and changes jobs.
#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "frontend/job_queue.h"

namespace penstock::frontend {

// Fields without a word about threads are constant, or guarded by the queue's mutex.
class Job final : public RequestObserver, public std::enable_shared_from_this<Job> {
 public:
  Job(JobQueue& queue, Payload payload, JobOptions options, std::shared_ptr<RequestObserver> observer)
      : queue_(queue), payload_(std::move(payload)), options_(std::move(options)), observer_(std::move(observer)) {
    if (options_.trace.recorded) worker_span_ = new_span_id();
  }

  bool on_event(const WorkerEvent& event) override;
  void on_done(const std::optional<Error>& failure) override;

 private:
  friend class JobQueue;
  enum class State { kWaiting, kRunning, kEnded };

  void set_ended() {
    state_ = State::kEnded;
    ended_.store(true, std::memory_order_release);
  }
  // A sign of life of the worker, or the start of waiting for one.
  void touch() { last_progress_.store(Clock::now(), std::memory_order_relaxed); }

  JobQueue& queue_;
  Payload payload_;  // constant once it waits
  const JobOptions options_;
  const std::shared_ptr<RequestObserver> observer_;
  SpanId worker_span_{};  // of its time at a worker, if spans are recorded
  const Clock::time_point submitted_ = Clock::now();
  std::atomic<Clock::time_point> last_progress_{Clock::now()};
  std::atomic<bool> ended_{false};  // mirrors state_ for on_event(), which takes no lock

  // on_event()'s, one call at a time; read by others when its call has ended.
  bool has_message_ = false;
  bool is_complete_ = false;            // the last event has come
  std::vector<int32_t> generated_;      // tokens, if it may go on with another worker

  State state_ = State::kWaiting;
  std::optional<Clock::time_point> started_;  // when a worker got it
  int group_ = -1;
  int epoch_ = 0;
  std::shared_ptr<JobQueue::Worker> worker_;  // set when it starts
  std::shared_ptr<WorkerCall> call_;
  // Set when the call has failed in a way that a dying group explains: its error, and until when to wait for the cause.
  std::optional<std::pair<Error, Clock::time_point>> lost_;
  // Set when its group is lost and it is to go on with another as soon as its call has ended: why.
  std::optional<Error> moving_;
  int moves_ = 0;      // to another worker
  int fruitless_ = 0;  // workers that were lost before they had sent it a token
};

}  // namespace penstock::frontend
