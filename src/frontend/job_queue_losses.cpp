// What becomes of jobs whose worker is lost: they end with its cause, or go on with another. See Note [Moving] in job_queue.h.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "frontend/job.h"
#include "frontend/job_queue.h"

namespace penstock::frontend {
namespace {

constexpr int kMaxMoves = 3;
constexpr int kMaxFruitless = 2;
// A worker that is only cut off is ended when it has been broken for cause_timeout, and the cause comes then.
constexpr int kCauseTimesForMoving = 10;

}  // namespace

void JobQueue::group_lost(int group, const Error& cause, bool for_good) {
  std::vector<std::shared_ptr<Job>> lost;
  size_t moving = 0;
  {
    MutexLock lock(mutex_);
    Group& slot = groups_.at(group);
    slot.worker = nullptr;
    slot.cause = cause;
    slot.gone_for_good = for_good;
    sequences_.group_lost(group);
    lost = jobs_of(group);
    moving = std::erase_if(lost, [&](const auto& job) REQUIRES(mutex_) { return move_or_wait(*job, cause); });
    if (hopeless()) waiting_.for_each([&](const auto& job) { lost.push_back(job); });
    changed_.notify_all();  // the client may have to be destroyed
  }
  if (moving > 0) spdlog::warn("model '{}': {} requests of worker group {} go on with another", options_.model, moving, group);
  for (const auto& job : lost) end(*job, cause);
  dispatch();
}

bool JobQueue::may_move(const Job& job) const {
  const bool is_text = std::holds_alternative<text::GenerationRequest>(job.payload_);
  return options_.move_lost && is_text && !job.options_.sequence && job.moves_ < kMaxMoves && !hopeless();
}

// The group of a running job is lost. true: it goes on with another one, if its call has not ended yet as soon as it has; false: it has to end.
bool JobQueue::move_or_wait(Job& job, const Error& cause) {
  if (!may_move(job)) return false;
  if (job.lost_) return move(job);
  job.moving_ = cause;
  return true;
}

// It waits again. false: it may be what its workers die of. REQUIRES: may_move(), and its call has ended, so no event comes meanwhile.
bool JobQueue::move(Job& job) {
  auto& request = std::get<text::GenerationRequest>(job.payload_);
  if (job.generated_.size() == request.generated_ids.size() && ++job.fruitless_ >= kMaxFruitless) return false;
  request.generated_ids = job.generated_;
  leave_running(job);
  job.state_ = Job::State::kWaiting;
  job.moves_ += 1;
  job.call_ = nullptr;
  job.lost_.reset();
  job.moving_.reset();
  job.touch();
  waiting_.join_again(job.shared_from_this(), job.options_.priority, job.options_.client);
  changed_.notify_all();
  return true;
}

std::vector<std::shared_ptr<Job>> JobQueue::jobs_of(int group) const {
  std::vector<std::shared_ptr<Job>> jobs;
  for (const auto& job : running_) {
    if (job->group_ == group) jobs.push_back(job);
  }
  return jobs;
}

// Why no group will ever take a job; nullopt while one may.
std::optional<Error> JobQueue::hopeless() const {
  const auto gone = [](const auto& entry) { return entry.second.gone_for_good || entry.second.leaving; };
  if (!std::all_of(groups_.begin(), groups_.end(), gone)) return std::nullopt;
  const auto lost = std::find_if(groups_.begin(), groups_.end(), [](const auto& entry) { return entry.second.gone_for_good; });
  if (lost == groups_.end()) {
    return error(Code::kUnavailable, "model '{}' has no worker; scale it up through the management API", options_.model);
  }
  return error(Code::kUnavailable, "model '{}' has no worker left: {}", options_.model, lost->second.cause->message());
}

// A worker's call has ended. When the worker is lost, its error says little ("connection reset"): the watcher knows which rank
// died and how, a moment earlier or later. INTERNAL of several ranks counts too: one that sees its peer die reports what its library says.
void JobQueue::call_ended(Job& job, const std::optional<Error>& failure) {
  std::optional<Error> outcome = failure;
  bool goes_on = false;
  const std::shared_ptr<Worker> worker = job.worker_;  // of this call: a job that goes on gets another
  const bool explained = failure && (failure->code() == Code::kUnavailable || (failure->code() == Code::kInternal && worker->several_ranks));
  {
    MutexLock lock(mutex_);
    const bool running = job.state_ == Job::State::kRunning;
    if (failure && (explained || job.moving_)) {
      const auto group = groups_.find(job.group_);
      const bool known = group == groups_.end() || !group->second.worker || group->second.epoch != job.epoch_;
      std::optional<Error> cause = job.moving_;
      if (!cause && known && group != groups_.end()) cause = group->second.cause;
      if (job.is_complete_) {
        outcome.reset();  // only the word that this was all is lost
      } else if (cause) {
        outcome = cause;
        goes_on = running && may_move(job) && move(job);
      } else if (running) {
        goes_on = true;
        const bool is_cut_off = failure->code() == Code::kUnavailable && may_move(job);
        job.lost_.emplace(*failure, Clock::now() + (is_cut_off ? kCauseTimesForMoving : 1) * options_.cause_timeout);
        changed_.notify_all();
      }
    }
  }
  if (goes_on) dispatch();
  else end(job, outcome);
  MutexLock lock(mutex_);
  // Its own word, not the end of a connection or our cancelling.
  const bool answered = !failure || (failure->code() != Code::kCancelled && failure->code() != Code::kUnavailable);
  if (answered) worker->last_heard.store(Clock::now(), std::memory_order_relaxed);
  worker->open_calls -= 1;
  changed_.notify_all();
}

}  // namespace penstock::frontend
