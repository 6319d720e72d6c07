#pragma once
// The requests to one model: waiting for a worker group, running on one, and how each of them ends.
#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "frontend/job_options.h"
#include "frontend/job_report.h"
#include "frontend/sequence_table.h"
#include "frontend/waiting_line.h"
#include "frontend/worker_client.h"

namespace penstock::frontend {

class Job;

struct JobQueueOptions {
  std::string model;                     // for messages
  size_t max_waiting = 100;              // jobQueueSize
  milliseconds response_timeout{120000}; // longest silence: waiting for a worker, and between two events of it
  milliseconds client_timeout{0};        // longest life of a job (clientTimeoutInMills); 0 = no limit
  bool needs_free_worker = false;        // useJobTicket: a job is refused unless a worker can take it at once
  SequenceLimits sequences;
  milliseconds cause_timeout{1000};      // how long a job that lost its worker waits for the watcher's word on why
  bool move_lost = false;                // generations that lose their worker go on with another (handler.retry)
  JobReporter reporter;                  // told of every job
};

// Hands jobs to the worker group with the fewest running ones; a job that finds no group ready, or all of them busy, waits (waiting_line.h).
//
// Threads:  every method from any thread; one thread of its own watches the timeouts. Observers are called without any lock held.
// Note [Moving]
// With move_lost, a generation whose worker is lost waits again, before all others, and goes on after the tokens that it has got: the next worker
// gets them with the prompt, so a text with a seed is what it would have been. It does so three times at most, and ends when two workers were lost
// before they had sent it anything: it may be what they die of. Requests of a sequence stay where they are, and end.
//
// Errors:   each job ends exactly once: OK; kUnavailable naming the rank that was lost; kDeadlineExceeded after response_timeout or at its
//           deadline; kResourceExhausted when it makes room for another; kCancelled; or the worker's own error.
// Lifetime: the destructor ends all jobs and waits until the workers' calls have ended, which cancelled calls always do. A lost
//           worker's client is kept until its calls have ended, and destroyed by the queue's own thread (worker_client.h says why).
class JobQueue {
 public:
  explicit JobQueue(JobQueueOptions options);
  ~JobQueue();
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  // Errors: those of SequenceTable::admit(); kDeadlineExceeded when its deadline has passed; kResourceExhausted when too many wait, or no worker is free and one must be;
  // kUnavailable without a group that will take it, or after stop_intake().
  [[nodiscard]] Result<std::shared_ptr<Job>> submit(Payload payload, JobOptions options, std::shared_ptr<RequestObserver> observer)
      EXCLUDES(mutex_);
  // The client has gone. Its observer still gets on_done(kCancelled). Harmless after the end.
  void cancel(Job& job) EXCLUDES(mutex_);

  // A group that will be ready some time. Numbers are never used again.
  void add_group(int group) EXCLUDES(mutex_);
  // It takes no new jobs; those that it runs go on. When it was the last one, the waiting jobs end.
  void leave_group(int group) EXCLUDES(mutex_);
  // Waits until it runs no job. false: it does at the deadline.
  [[nodiscard]] bool wait_group_idle(int group, Deadline deadline) EXCLUDES(mutex_);
  // It is gone. Jobs that it still runs end with `cause`.
  void remove_group(int group, const Error& cause) EXCLUDES(mutex_);

  // A group takes up to `max_concurrent` jobs at once from now on. Of several stages: an INTERNAL error of one may be the death of another.
  void group_ready(int group, std::shared_ptr<WorkerClient> client, int max_concurrent, int num_stages = 1) EXCLUDES(mutex_);
  // Its jobs end with `cause`. `for_good`: it will not come back; when none will, the waiting jobs end too.
  void group_lost(int group, const Error& cause, bool for_good) EXCLUDES(mutex_);

  // New jobs are refused with `why`; those that wait or run go on.
  void stop_intake(const Error& why) EXCLUDES(mutex_);
  // Waits until no job waits or runs. false: some do at the deadline.
  [[nodiscard]] bool wait_idle(Deadline deadline) EXCLUDES(mutex_);
  // Refuses new jobs and ends all others with `why`.
  void close(const Error& why) EXCLUDES(mutex_);

  // Groups that stay silent, each told once: two requests, the second begun after the first was given up, have got no word within
  // response_timeout, and nothing else has come from the worker meanwhile.
  [[nodiscard]] std::vector<int> take_stuck() EXCLUDES(mutex_);

  // Groups whose client has been broken for cause_timeout, which their watcher would know by now if their processes had ended; and why.
  [[nodiscard]] std::vector<std::pair<int, Error>> broken_groups() EXCLUDES(mutex_);

  // The groups that are ready, and what their engines said last.
  struct EngineUse {
    int group = 0;
    int jobs = 0;  // that it runs
    std::optional<EngineFigures> figures;
  };
  [[nodiscard]] std::vector<EngineUse> engines() const EXCLUDES(mutex_);

  [[nodiscard]] size_t num_waiting() const EXCLUDES(mutex_);
  [[nodiscard]] size_t num_running() const EXCLUDES(mutex_);

 private:
  friend class Job;
  // One start of a group.
  struct Worker {
    Worker(std::shared_ptr<WorkerClient> its_client, bool has_several_ranks) : client(std::move(its_client)), several_ranks(has_several_ranks) {}
    std::shared_ptr<WorkerClient> client;  // null when no group has it and no call uses it
    const bool several_ranks;
    int open_calls = 0;                    // whose on_done() has not come
    std::atomic<Clock::time_point> last_heard{Clock::time_point::min()};
    std::optional<Clock::time_point> silent_since = {};  // when a request that got no word was given up; nothing has come since
    std::optional<Clock::time_point> broken_since = {};  // by broken_groups()
  };
  struct Group {
    std::shared_ptr<Worker> worker;        // one of workers_; null: not ready
    int epoch = 0;                         // grows with every group_ready()
    int max_concurrent = 0;
    int running = 0;                       // jobs of this epoch
    bool gone_for_good = false;
    bool leaving = false;                  // takes no new jobs
    std::optional<Error> cause;            // of the last loss
  };

  [[nodiscard]] std::optional<Error> enqueue(const std::shared_ptr<Job>& job, std::shared_ptr<Job>& displaced) EXCLUDES(mutex_);
  void dispatch() EXCLUDES(mutex_);
  std::shared_ptr<Job> take_startable() EXCLUDES(mutex_);
  void end(Job& job, const std::optional<Error>& outcome) EXCLUDES(mutex_);
  void call_ended(Job& job, const std::optional<Error>& failure) EXCLUDES(mutex_);
  [[nodiscard]] std::pair<const int, Group>* free_group() REQUIRES(mutex_);
  [[nodiscard]] std::pair<const int, Group>* place_for(const Job& job) REQUIRES(mutex_);
  [[nodiscard]] std::vector<std::shared_ptr<Job>> jobs_of(int group) const REQUIRES(mutex_);
  [[nodiscard]] bool may_move(const Job& job) const REQUIRES(mutex_);
  [[nodiscard]] bool move_or_wait(Job& job, const Error& cause) REQUIRES(mutex_);
  [[nodiscard]] bool move(Job& job) REQUIRES(mutex_);
  void leave_running(Job& job) REQUIRES(mutex_);
  [[nodiscard]] bool any_open_call() const REQUIRES(mutex_);
  [[nodiscard]] std::vector<std::shared_ptr<WorkerClient>> take_retired() REQUIRES(mutex_);
  [[nodiscard]] std::optional<Error> hopeless() const REQUIRES(mutex_);
  [[nodiscard]] size_t num_free_places() const REQUIRES(mutex_);
  [[nodiscard]] Clock::time_point expiry(const Job& job) const;
  [[nodiscard]] Error expired(const Job& job) const;
  [[nodiscard]] bool shows_stuck_group(const Job& expired) REQUIRES(mutex_);
  void watch_timeouts() EXCLUDES(mutex_);

  const JobQueueOptions options_;
  mutable Mutex mutex_;
  CondVar changed_;  // a job was added or has ended, a call has ended, or the queue is being destroyed
  std::map<int, Group> groups_ GUARDED_BY(mutex_);
  WaitingLine<std::shared_ptr<Job>> waiting_ GUARDED_BY(mutex_);
  SequenceTable sequences_ GUARDED_BY(mutex_);  // of the jobs that wait or run
  std::unordered_set<std::shared_ptr<Job>> running_ GUARDED_BY(mutex_);
  std::optional<Error> refusing_ GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<Worker>> workers_ GUARDED_BY(mutex_);  // those of groups_, and lost ones with open calls
  std::vector<int> stuck_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread timeout_watcher_;  // last: it uses the members above
};

}  // namespace penstock::frontend
