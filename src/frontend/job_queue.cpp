#include "frontend/job_queue.h"

#include <strings.h>

#include <algorithm>
#include <utility>

#include "frontend/job.h"

namespace penstock::frontend {

namespace {

// A handler that keeps something for each sequence has to know when to begin afresh.
void mark_begin(Payload& payload, const std::string& header) {
  auto* request = std::get_if<handler::Request>(&payload);
  if (request && !header.empty() && !handler::find_header(request->headers, header)) request->headers.emplace_back(header, "true");
}

// What a handler does for a request lies below the worker's span, if there is one, else below the caller's.
void pass_on_trace(Payload& payload, const RequestTrace& trace, const SpanId& worker_span) {
  auto* request = std::get_if<handler::Request>(&payload);
  if (!request || !trace.context) return;
  TraceContext context = *trace.context;
  if (trace.recorded) context.span = worker_span;
  std::erase_if(request->headers, [](const auto& header) {
    return ::strcasecmp(header.first.c_str(), "traceparent") == 0 || ::strcasecmp(header.first.c_str(), "tracestate") == 0;
  });
  request->headers.emplace_back("traceparent", traceparent(context));
  if (!context.state.empty()) request->headers.emplace_back("tracestate", context.state);
}

}  // namespace

bool Job::on_event(const WorkerEvent& event) {
  if (ended_.load(std::memory_order_acquire)) return false;
  const auto now = Clock::now();
  const auto last = last_progress_.exchange(now, std::memory_order_relaxed);
  worker_->last_heard.store(now, std::memory_order_relaxed);  // set before the call was started; stays while it is open
  if (ModelMeter* meter = queue_.options_.reporter.meter.get()) {
    const bool first = !std::exchange(has_message_, true);
    if (first) meter->first_message(options_.protocol, now - submitted_);
    else meter->message(options_.protocol, now - last);
    if (event.token_id >= 0) meter->token(first, first ? now - submitted_ : now - last);
    if (event.finished) meter->generated(*event.finished, now - submitted_);
  }
  if (event.finished) is_complete_ = true;
  if (event.token_id >= 0 && queue_.options_.move_lost) generated_.push_back(event.token_id);
  const auto bad = event.head ? check_head(*event.head) : std::nullopt;  // a worker may have gone mad
  if (!bad && observer_->on_event(event)) return true;
  queue_.end(*this, bad ? *bad : Error(Code::kCancelled, "the reader is gone or too slow"));
  return false;
}

void Job::on_done(const std::optional<Error>& failure) {
  const auto self = shared_from_this();  // the queue may drop its last reference
  queue_.call_ended(*this, failure);
}

JobQueue::JobQueue(JobQueueOptions options)
    : options_(std::move(options)), waiting_(options_.max_waiting), sequences_(options_.sequences) {
  timeout_watcher_ = std::thread([this] { watch_timeouts(); });
}

JobQueue::~JobQueue() {
  close(Error(Code::kUnavailable, "the server is stopping"));
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    while (any_open_call()) changed_.wait(mutex_, Deadline::never());
  }
  timeout_watcher_.join();
}

Result<std::shared_ptr<Job>> JobQueue::submit(Payload payload, JobOptions options, std::shared_ptr<RequestObserver> observer) {
  if (options.deadline.passed()) return error(Code::kDeadlineExceeded, "model '{}': the call's deadline has passed", options_.model);
  // What was computed for one client is neither used for another nor measurable by it.
  if (auto* text = std::get_if<text::GenerationRequest>(&payload)) text->cache_salt = options.client + '\n' + text->cache_salt;
  auto job = std::make_shared<Job>(*this, std::move(payload), std::move(options), std::move(observer));
  pass_on_trace(job->payload_, job->options_.trace, job->worker_span_);
  const JobReporter& reporter = options_.reporter;
  if (reporter.meter) reporter.meter->submitted();
  std::shared_ptr<Job> displaced;
  auto refused = enqueue(job, displaced);
  if (refused && refused->code() == Code::kResourceExhausted) {
    dispatch();  // what fills the queue may be about to start, by the thread that brought it
    refused = enqueue(job, displaced);
  }
  if (refused) {
    reporter.ended({job->options_, job->worker_span_, job->submitted_, std::nullopt, refused});
    return *refused;
  }
  if (displaced) {
    const Error why = error(Code::kResourceExhausted,
                            "model '{}': the queue is full (jobQueueSize {}), and the request made room for one of higher priority, or of a client "
                            "that has fewer; try again later",
                            options_.model, options_.max_waiting);
    reporter.ended({displaced->options_, displaced->worker_span_, displaced->submitted_, std::nullopt, why});
    displaced->observer_->on_done(why);
  }
  dispatch();
  return job;
}

// Why it is refused; nullopt: it waits, perhaps in the place of another.
std::optional<Error> JobQueue::enqueue(const std::shared_ptr<Job>& job, std::shared_ptr<Job>& displaced) {
  MutexLock lock(mutex_);
  if (refusing_) return *refusing_;
  if (auto reason = hopeless()) return *reason;
  if (options_.needs_free_worker && num_free_places() <= waiting_.size()) {
    return error(Code::kResourceExhausted, "model '{}': no worker is free (useJobTicket); try again later", options_.model);
  }
  const auto& sequence = job->options_.sequence;
  if (const auto refused = sequence ? sequences_.admit(sequence->id, Clock::now()) : std::nullopt) {
    return error(refused->code(), "model '{}': {}", options_.model, refused->message());
  }
  auto joined = waiting_.join(job, job->options_.priority, job->options_.client);
  if (!joined.accepted) {
    if (sequence) sequences_.dropped(sequence->id, Clock::now());
    return error(Code::kResourceExhausted, "model '{}': the queue is full, {} requests wait (jobQueueSize {}); try again later",
                 options_.model, waiting_.size(), options_.max_waiting);
  }
  if (joined.displaced) {
    displaced = std::move(*joined.displaced);
    displaced->set_ended();
    if (displaced->options_.sequence) sequences_.dropped(displaced->options_.sequence->id, Clock::now());
  }
  changed_.notify_all();
  return std::nullopt;
}

void JobQueue::cancel(Job& job) { end(job, Error(Code::kCancelled, "the client has cancelled the request")); }

void JobQueue::add_group(int group) {
  MutexLock lock(mutex_);
  const bool is_new = groups_.try_emplace(group).second;
  PENSTOCK_CHECK(is_new, "model {}: group {} is added twice", options_.model, group);
}

void JobQueue::leave_group(int group) {
  std::vector<std::shared_ptr<Job>> lost;
  std::optional<Error> why;
  {
    MutexLock lock(mutex_);
    const auto found = groups_.find(group);
    if (found == groups_.end()) return;  // it ended by itself meanwhile
    found->second.leaving = true;
    sequences_.group_lost(group);
    why = hopeless();
    if (why) lost = waiting_.all();
  }
  for (const auto& job : lost) end(*job, why);
}

bool JobQueue::wait_group_idle(int group, Deadline deadline) {
  MutexLock lock(mutex_);
  const auto idle = [&]() REQUIRES(mutex_) { return groups_.at(group).running == 0; };
  while (!idle()) {
    if (!changed_.wait(mutex_, deadline)) return idle();
  }
  return true;
}

void JobQueue::remove_group(int group, const Error& cause) {
  group_lost(group, cause, /*for_good=*/true);
  MutexLock lock(mutex_);
  groups_.erase(group);
  changed_.notify_all();
}

void JobQueue::group_ready(int group, std::shared_ptr<WorkerClient> client, int max_concurrent, int num_stages) {
  {
    MutexLock lock(mutex_);
    Group& slot = groups_.at(group);
    slot.worker = std::make_shared<Worker>(std::move(client), num_stages > 1);
    workers_.push_back(slot.worker);
    slot.epoch += 1;
    slot.max_concurrent = std::max(1, max_concurrent);
    slot.running = 0;
  }
  dispatch();
}

void JobQueue::stop_intake(const Error& why) {
  MutexLock lock(mutex_);
  if (!refusing_) refusing_ = why;
}

bool JobQueue::wait_idle(Deadline deadline) {
  MutexLock lock(mutex_);
  while (!waiting_.empty() || !running_.empty()) {
    if (!changed_.wait(mutex_, deadline)) return waiting_.empty() && running_.empty();
  }
  return true;
}

void JobQueue::close(const Error& why) {
  std::vector<std::shared_ptr<Job>> all;
  {
    MutexLock lock(mutex_);
    if (!refusing_) refusing_ = why;
    all = waiting_.all();
    all.insert(all.end(), running_.begin(), running_.end());
  }
  for (const auto& job : all) end(*job, why);
}

std::vector<int> JobQueue::take_stuck() {
  MutexLock lock(mutex_);
  return std::exchange(stuck_, {});
}

std::vector<std::pair<int, Error>> JobQueue::broken_groups() {
  std::vector<std::pair<int, std::shared_ptr<WorkerClient>>> clients;
  {
    MutexLock lock(mutex_);
    for (const auto& [number, group] : groups_) {
      if (group.worker && !group.leaving) clients.emplace_back(number, group.worker->client);
    }
  }
  std::vector<std::pair<int, Error>> broken;
  for (const auto& [number, client] : clients) {
    const auto why = client->broken();
    if (!why) continue;
    MutexLock lock(mutex_);
    const auto group = groups_.find(number);
    if (group == groups_.end() || !group->second.worker || group->second.worker->client != client) continue;  // lost meanwhile
    auto& since = group->second.worker->broken_since;
    if (!since) since = Clock::now();
    if (Clock::now() - *since >= options_.cause_timeout) broken.emplace_back(number, *why);
  }
  return broken;
}

std::vector<JobQueue::EngineUse> JobQueue::engines() const {
  MutexLock lock(mutex_);
  std::vector<EngineUse> all;
  for (const auto& [number, group] : groups_) {
    if (group.worker) all.push_back({number, group.running, group.worker->client->engine_figures()});
  }
  return all;
}

size_t JobQueue::num_waiting() const {
  MutexLock lock(mutex_);
  return waiting_.size();
}

size_t JobQueue::num_running() const {
  MutexLock lock(mutex_);
  return running_.size();
}

// Starts waiting jobs while a group has room.
void JobQueue::dispatch() {
  while (auto job = take_startable()) {
    const auto started = *job->started_;
    const int moves = job->moves_;
    auto call = job->worker_->client->start(job->payload_, job);
    if (ModelMeter* meter = options_.reporter.meter.get(); meter && moves == 0) {
      meter->started(job->options_.protocol, started - job->submitted_, Clock::now() - started);
    }
    bool ended_meanwhile = false;
    {
      MutexLock lock(mutex_);
      ended_meanwhile = job->state_ == Job::State::kEnded || job->moves_ != moves;
      if (!ended_meanwhile) job->call_ = call;
    }
    if (ended_meanwhile) call->cancel();
  }
}

std::shared_ptr<Job> JobQueue::take_startable() {
  MutexLock lock(mutex_);
  if (waiting_.empty() || !free_group()) return nullptr;
  std::pair<const int, Group>* place = nullptr;
  const auto found = waiting_.next([&](const auto& job) REQUIRES(mutex_) { return (place = place_for(*job)) != nullptr; });
  if (!found) return nullptr;
  const auto& job = *found;
  auto& [number, group] = *place;
  const auto& sequence = job->options_.sequence;
  if (sequence && sequences_.started(sequence->id, number)) mark_begin(job->payload_, sequence->begin_header);
  job->state_ = Job::State::kRunning;
  job->group_ = number;
  job->epoch_ = group.epoch;
  job->worker_ = group.worker;
  job->touch();
  job->started_ = job->last_progress_.load(std::memory_order_relaxed);
  running_.insert(job);
  group.running += 1;
  group.worker->open_calls += 1;
  return job;
}

std::pair<const int, JobQueue::Group>* JobQueue::free_group() {
  std::pair<const int, Group>* best = nullptr;
  for (auto& entry : groups_) {
    const Group& group = entry.second;
    const bool free = group.worker && !group.leaving && group.running < group.max_concurrent;
    if (free && (!best || group.running < best->second.running)) best = &entry;
  }
  return best;
}

// Where a waiting job may start now; null: nowhere.
std::pair<const int, JobQueue::Group>* JobQueue::place_for(const Job& job) {
  if (!job.options_.sequence) return free_group();
  const std::string& id = job.options_.sequence->id;
  if (!sequences_.may_start(id)) return nullptr;
  const auto bound = sequences_.group(id);
  if (!bound) return free_group();
  const auto group = groups_.find(*bound);
  if (group == groups_.end()) return free_group();
  return group->second.worker && group->second.running < group->second.max_concurrent ? &*group : nullptr;
}

size_t JobQueue::num_free_places() const {
  int places = 0;
  for (const auto& [number, group] : groups_) {
    if (group.worker && !group.leaving) places += std::max(0, group.max_concurrent - group.running);
  }
  return static_cast<size_t>(places);
}

bool JobQueue::any_open_call() const {
  return std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) { return worker->open_calls > 0; });
}

// The clients of workers that no group has and no call uses. An ended job may still look at its Worker, which has no client any more.
std::vector<std::shared_ptr<WorkerClient>> JobQueue::take_retired() {
  std::vector<std::shared_ptr<WorkerClient>> retired;
  for (auto& worker : workers_) {
    const auto uses = [&](const auto& entry) { return entry.second.worker == worker; };
    if (worker->open_calls > 0 || std::any_of(groups_.begin(), groups_.end(), uses)) continue;
    retired.push_back(std::move(worker->client));
    worker.reset();
  }
  std::erase(workers_, nullptr);
  return retired;
}

void JobQueue::leave_running(Job& job) {
  running_.erase(job.shared_from_this());
  const auto group = groups_.find(job.group_);
  if (group != groups_.end() && group->second.epoch == job.epoch_) group->second.running -= 1;
}

// Ends a job once; later calls do nothing.
void JobQueue::end(Job& job, const std::optional<Error>& outcome) {
  std::shared_ptr<WorkerCall> call;
  std::optional<Clock::time_point> started;
  const auto self = job.shared_from_this();
  {
    MutexLock lock(mutex_);
    if (job.state_ == Job::State::kEnded) return;
    if (job.state_ == Job::State::kWaiting) {
      waiting_.leave(self, job.options_.priority, job.options_.client);
      if (job.options_.sequence) sequences_.dropped(job.options_.sequence->id, Clock::now());
    } else {
      if (job.options_.sequence) sequences_.finished(job.options_.sequence->id, job.options_.sequence->last, Clock::now());
      leave_running(job);
    }
    job.set_ended();
    call = std::move(job.call_);
    started = job.started_;
    changed_.notify_all();
  }
  if (call) call->cancel();  // harmless when the call is what ended the job
  options_.reporter.ended({job.options_, job.worker_span_, job.submitted_, started, outcome, std::holds_alternative<text::GenerationRequest>(job.payload_)});
  job.observer_->on_done(outcome);
  dispatch();
}

Clock::time_point JobQueue::expiry(const Job& job) const {
  if (job.lost_) return job.lost_->second;
  const auto silent_until = job.last_progress_.load(std::memory_order_relaxed) + options_.response_timeout;
  const auto until = std::min(silent_until, job.options_.deadline.when());
  return options_.client_timeout > milliseconds(0) ? std::min(until, job.submitted_ + options_.client_timeout) : until;
}

Error JobQueue::expired(const Job& job) const {
  if (job.lost_) return job.lost_->first;
  if (job.moving_) return *job.moving_;
  if (options_.client_timeout > milliseconds(0) && Clock::now() >= job.submitted_ + options_.client_timeout) {
    return error(Code::kDeadlineExceeded, "model '{}': the request has not ended within {} ms (clientTimeoutInMills)", options_.model,
                 options_.client_timeout.count());
  }
  if (job.options_.deadline.passed()) {
    const char* where = job.state_ == Job::State::kWaiting ? "while it waited for a worker" : "while it ran";
    return error(Code::kDeadlineExceeded, "model '{}': the call's deadline has passed {}", options_.model, where);
  }
  const double limit = to_seconds(options_.response_timeout);
  if (job.state_ == Job::State::kWaiting) {
    return error(Code::kDeadlineExceeded, "model '{}': no worker was free for {} s (responseTimeout); try again later", options_.model, limit);
  }
  return error(Code::kDeadlineExceeded,
               "model '{}': its worker sent nothing for {} s (responseTimeout); the request was cancelled, the worker goes on",
               options_.model, limit);
}

// Whether this job, which has expired, shows that its group is silent for good. A single slow answer does not.
bool JobQueue::shows_stuck_group(const Job& job) {
  const bool silent = job.state_ == Job::State::kRunning && !job.lost_ &&
                      Clock::now() - job.last_progress_.load(std::memory_order_relaxed) >= options_.response_timeout;
  const auto group = groups_.find(job.group_);
  if (!silent || group == groups_.end() || !group->second.worker || group->second.epoch != job.epoch_) return false;
  Worker& worker = *group->second.worker;
  const auto heard = worker.last_heard.load(std::memory_order_relaxed);
  const bool silent_before = worker.silent_since && heard < *worker.silent_since;
  if (silent_before && *job.started_ < *worker.silent_since) return false;  // of the same time as the first
  worker.silent_since.reset();
  if (!silent_before && heard < *job.started_) worker.silent_since = Clock::now();
  return silent_before;
}

void JobQueue::watch_timeouts() {
  for (;;) {
    std::vector<std::pair<std::shared_ptr<Job>, Error>> overdue;
    std::vector<std::shared_ptr<WorkerClient>> retired;  // destroyed here, in this thread, without the lock
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      retired = take_retired();
      const auto now = Clock::now();
      auto next = Clock::time_point::max();
      const auto look_at = [&](const std::shared_ptr<Job>& job) REQUIRES(mutex_) {
        const auto when = expiry(*job);
        if (when <= now) overdue.emplace_back(job, expired(*job));
        else next = std::min(next, when);
        if (when <= now && shows_stuck_group(*job)) stuck_.push_back(job->group_);
      };
      waiting_.for_each(look_at);
      std::for_each(running_.begin(), running_.end(), look_at);
      // Events only move a job's expiry back, so waking at the earliest one known misses none.
      if (overdue.empty() && retired.empty()) changed_.wait(mutex_, Deadline::at(next));
    }
    for (const auto& [job, why] : overdue) end(*job, why);
  }
}

}  // namespace penstock::frontend
