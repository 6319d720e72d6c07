#include "comm/liveness.h"

#include <algorithm>
#include <thread>

#include "base/log.h"
#include "base/mutex.h"
#include "comm/c10d_compat.h"
#include "comm/network_address.h"
#include "comm/process_identity.h"
#include "comm/rank_watch.h"

namespace penstock::comm {
namespace {

constexpr const char* kVerdictKey = "verdict";
constexpr const char* kAlarmKey = "alarm";  // "RANK.NUMBER TEXT", so that no two are alike
std::string heartbeat_key(int rank) { return fmt::format("heartbeat/{}", rank); }
std::string identity_key(int rank) { return fmt::format("process/{}", rank); }

std::optional<ProcessIdentity> read_identity(::c10d::Store& store, int rank) {
  const auto text = compat::store_try_get(store, identity_key(rank));
  return text ? ProcessIdentity::from_text(*text) : std::nullopt;
}

}  // namespace

// Note [Who tells whom]
// Rank 0 alone decides, so that all ranks name the same culprit; it reads N heartbeats an interval, the others one key. It publishes the
// verdict in its own process last: whoever hears of it there may end the process, and the store with it, and then the others would name rank 0.
class Liveness::Impl {
 public:
  Impl(const cluster::RankInfo& info, LivenessOptions options)
      : info_(info),
        options_(std::move(options)),
        store_address_(fmt::format("{}:{}", info.master_addr, info.master_port)),
        watch_(info.world_size, options_.dead_after, options_.start_after) {
    if (info_.world_size == 1) return;
    try {
      connect();
    } catch (const std::exception&) {
      throw error(Code::kUnavailable, "rank {} cannot send heartbeats to the store at {}: {}", info_.rank, store_address_,
                  compat::error_text(std::current_exception()));
    }
    thread_ = std::thread([this] { run(); });
  }

  ~Impl() {
    {
      MutexLock lock(mutex_);
      stop_ = true;
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }

  // Returns when the heartbeat thread has delivered it.
  void post(RankState state, const std::string& text, Deadline deadline) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!thread_.joinable() || failure_ || state_ != RankState::kAlive) return;
    state_ = state;
    text_ = text;
    changed_.notify_all();
    while (!delivered_ && !failure_) {
      if (!changed_.wait(mutex_, deadline)) return;
    }
  }

  void raise_alarm(const std::string& text) EXCLUDES(mutex_) {
    if (info_.world_size == 1) return call(options_.on_alarm, text);
    MutexLock lock(mutex_);
    alarm_ = text;
    changed_.notify_all();
  }

  std::optional<std::string> first_failure(Deadline deadline) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (thread_.joinable() && !failure_) {
      if (!changed_.wait(mutex_, deadline)) break;
    }
    return failure_;
  }

 private:
  // ---- the heartbeat thread ----

  void run() {
    Clock::time_point last = Clock::now();
    bool go_on = true;
    while (go_on) {
      const Clock::time_point now = Clock::now();
      // A pause of this process itself says nothing about the others.
      const milliseconds elapsed = std::min(std::chrono::duration_cast<milliseconds>(now - last), 4 * options_.interval);
      last = now;
      try {
        if (!store_) connect();
        go_on = info_.rank == 0 ? lead(elapsed) : follow();
        if (go_on) pass_alarm();
        last_answer_ = Clock::now();
        num_unanswered_ = 0;
      } catch (const std::exception&) {
        ++num_unanswered_;
        store_.reset();
        if (info_.rank != 0) go_on = !is_store_gone(compat::error_text(std::current_exception()));
      }
      if (go_on) go_on = sleep();
    }
  }

  // One interval, or until there is something to deliver; false when the thread has to end.
  bool sleep() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(options_.interval);
    const RankState before = state_;
    while (!stop_ && state_ == before && !alarm_) {
      if (!changed_.wait(mutex_, deadline)) break;
    }
    return !stop_;
  }

  void connect() {
    // Also the time limit of each answer: the first wait on a connection sets it.
    const milliseconds limit = std::clamp<milliseconds>(options_.dead_after / 2, milliseconds(500), seconds(2));
    const compat::StorePtr server = compat::make_tcp_store(info_.master_addr, info_.master_port, /*is_server=*/false, limit);
    compat::StorePtr store = compat::make_prefix_store("liveness", server);
    compat::store_set(*store, identity_key(info_.rank), self_.to_text());
    store->wait({identity_key(info_.rank)}, limit);
    store_ = std::move(store);
  }

  void write_heartbeat(RankState state, const std::string& text) {
    compat::store_set(*store_, heartbeat_key(info_.rank), Heartbeat{.count = ++num_heartbeats_, .state = state, .text = text}.to_text());
  }

  // One of this rank goes into the store; one of any rank is heard here.
  void pass_alarm() EXCLUDES(mutex_) {
    std::optional<std::string> mine;
    {
      MutexLock lock(mutex_);
      mine = std::exchange(alarm_, std::nullopt);
    }
    if (mine) compat::store_set(*store_, kAlarmKey, fmt::format("{}.{} {}", info_.rank, ++num_alarms_, *mine));
    const auto alarm = compat::store_try_get(*store_, kAlarmKey);
    if (!alarm || *alarm == last_alarm_) return;
    last_alarm_ = *alarm;
    call(options_.on_alarm, alarm->substr(alarm->find(' ') + 1));
  }

  static void call(const std::function<void(const std::string&)>& handler, const std::string& text) {
    if (!handler) return;
    try {
      handler(text);
    } catch (const std::exception& failed) {
      spdlog::error("heartbeat: the handler of '{}' failed: {}", text, failed.what());
    }
  }

  // Every rank but 0. False: nothing more to do.
  bool follow() EXCLUDES(mutex_) {
    const auto [state, text] = to_report();
    write_heartbeat(state, text);
    if (!leader_) leader_ = read_identity(*store_, 0);
    const auto verdict = compat::store_try_get(*store_, kVerdictKey);  // its answer also proves that the heartbeat has arrived
    if (state != RankState::kAlive) deliver();
    if (state == RankState::kDone) return false;
    if (!verdict) return true;
    if (state == RankState::kAlive) {
      write_heartbeat(RankState::kTold, "");
      (void)store_->check({kVerdictKey});
    }
    publish(*verdict);
    return false;
  }

  // Rank 0. False: nothing more to do.
  bool lead(milliseconds elapsed) EXCLUDES(mutex_) {
    const auto [state, text] = to_report();
    for (int rank = 1; rank < info_.world_size; ++rank) observe(rank, elapsed);
    if (!verdict_) {
      verdict_ = state == RankState::kFailed ? fmt::format("{} failed: {}", describe_rank(0, self_), text) : watch_.verdict();
      if (verdict_) {
        compat::store_set(*store_, kVerdictKey, *verdict_);
        tell_until_ = Deadline::after(options_.tell_within);
      }
    }
    if (verdict_ && (watch_.all_told() || tell_until_.passed())) {
      publish(*verdict_);
      return false;
    }
    if (state != RankState::kDone || !watch_.all_left()) return true;
    deliver();
    return false;
  }

  void observe(int rank, milliseconds elapsed) {
    if (!watch_.identity(rank)) {
      if (const auto process = read_identity(*store_, rank)) watch_.set_identity(rank, *process);
    }
    const auto text = compat::store_try_get(*store_, heartbeat_key(rank));
    watch_.observe(rank, text ? Heartbeat::from_text(*text) : std::nullopt, elapsed);
    // After its last words have been read.
    const auto& process = watch_.identity(rank);
    if (process && has_ended(*process, self_)) observe_end(rank);
  }

  void observe_end(int rank) {
    const auto text = compat::store_try_get(*store_, heartbeat_key(rank));  // written between the first reading and its end
    watch_.observe(rank, text ? Heartbeat::from_text(*text) : std::nullopt, milliseconds(0));
    watch_.observe_end(rank);
  }

  // The store did not answer: is rank 0, which holds it, gone? Publishes the verdict if so.
  bool is_store_gone(const std::string& symptom) EXCLUDES(mutex_) {
    const std::string who = fmt::format("{}, which holds the store at {},", describe_rank(0, leader_), store_address_);
    if (leader_ && has_ended(*leader_, self_)) {
      publish(who + " has ended without a word");
      return true;
    }
    const bool refused = probe_listener(info_.master_addr, info_.master_port, Deadline::after(seconds(1))) == Listener::kAbsent;
    // One failure after a long pause may be this process's own pause.
    const bool silent = num_unanswered_ >= 2 && Clock::now() - last_answer_ >= options_.dead_after;
    if (!refused && !silent) return false;
    publish(fmt::format("{} is gone: {}", who, refused ? "nobody listens there any more" : symptom));
    return true;
  }

  std::pair<RankState, std::string> to_report() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return {state_, text_};
  }

  void deliver() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    delivered_ = true;
    changed_.notify_all();
  }

  // The first failure stays.
  void publish(const std::string& text) EXCLUDES(mutex_) {
    bool alive = false;
    {
      MutexLock lock(mutex_);
      if (failure_) return;
      failure_ = text;
      alive = state_ == RankState::kAlive && !stop_;
      changed_.notify_all();
    }
    if (alive) call(options_.on_failure, text);
  }

  // Constant after construction.
  const cluster::RankInfo info_;
  const LivenessOptions options_;
  const std::string store_address_;
  const ProcessIdentity self_ = this_process();

  // Of the heartbeat thread.
  compat::StorePtr store_;
  uint64_t num_heartbeats_ = 0;
  Clock::time_point last_answer_ = Clock::now();  // of the store
  int num_unanswered_ = 0;                        // attempts since then
  int num_alarms_ = 0;                            // of this rank
  std::string last_alarm_;                        // of any rank
  std::optional<ProcessIdentity> leader_;         // rank 0's process, on the other ranks
  RankWatch watch_;                               // on rank 0
  std::optional<std::string> verdict_;            // on rank 0
  Deadline tell_until_ = Deadline::never();

  Mutex mutex_;
  CondVar changed_;
  RankState state_ GUARDED_BY(mutex_) = RankState::kAlive;
  std::string text_ GUARDED_BY(mutex_);
  std::optional<std::string> alarm_ GUARDED_BY(mutex_);  // not yet in the store
  bool delivered_ GUARDED_BY(mutex_) = false;
  bool stop_ GUARDED_BY(mutex_) = false;
  std::optional<std::string> failure_ GUARDED_BY(mutex_);

  std::thread thread_;
};

Liveness::Liveness(const cluster::RankInfo& info, LivenessOptions options) : impl_(std::make_unique<Impl>(info, std::move(options))) {}
Liveness::~Liveness() = default;

void Liveness::post_failure(const std::string& text, Deadline deadline) { impl_->post(RankState::kFailed, text, deadline); }
void Liveness::post_done(Deadline deadline) { impl_->post(RankState::kDone, "", deadline); }
void Liveness::raise_alarm(const std::string& text) { impl_->raise_alarm(text); }
std::optional<std::string> Liveness::first_failure(Deadline deadline) { return impl_->first_failure(deadline); }

}  // namespace penstock::comm
