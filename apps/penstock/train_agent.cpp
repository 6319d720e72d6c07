#include "train_agent.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "commands.h"
#include "plan/elastic_mesh.h"
#include "rpc/grpc_rendezvous.h"
#include "stop_signals.h"

namespace penstock {
namespace {

using cluster::AgentOrder;
using cluster::ElasticSettings;
using cluster::RoundEnd;

constexpr milliseconds kReportInterval{200};
constexpr seconds kQuietWait{5};        // a wait that lasts longer is said, and what for
constexpr seconds kWaitReminder{30};    // and again
constexpr seconds kTellWait{10};        // for the other agents to hear of the job's end
constexpr seconds kLongestStop{180};    // of all ranks, after a signal

// How the job is cut with so many ranks. The step's micro-batches over all replicas stay what the configuration says.
struct Layout {
  plan::ElasticMesh mesh;
  int world_size = 0;
};

std::optional<Layout> layout_for(const config::TrainConfig& config, int ranks) {
  if (config.schedule.ends_with(".csv")) {  // for a fixed number of micro-batches
    if (ranks < config.world_size()) return std::nullopt;
    return Layout{{config.mesh.data, config.batch.microbatches}, config.world_size()};
  }
  const auto mesh = plan::fit_replicas({config.schedule, config.mesh.pipe, config.chunks, config.mesh.data * config.batch.microbatches}, ranks / config.mesh.tensor);
  if (!mesh) return std::nullopt;
  return Layout{*mesh, mesh->replicas * config.mesh.pipe * config.mesh.tensor};
}

std::string plural(int n, const char* what, const char* ending = "s") { return fmt::format("{} {}{}", n, what, n == 1 ? "" : ending); }

std::pair<int, std::string> usable_ranks(const config::TrainConfig& config, int available) {
  const auto layout = layout_for(config, available);
  if (!layout) return {0, fmt::format("{} cannot hold mesh.pipe {} x mesh.tensor {} with schedule {}", plural(available, "rank"), config.mesh.pipe, config.mesh.tensor,
                                          config.schedule)};
  const int spare = available - layout->world_size;
  const std::string left = spare == 0 ? ""
                                      : fmt::format("; {} not started, as the step's {} micro-batches (mesh.data x batch.microbatches) go into {} evenly at most",
                                                    plural(spare, "rank"), config.mesh.data * config.batch.microbatches, plural(layout->mesh.replicas, "replica"));
  return {layout->world_size, fmt::format("{} x {} with {} each{}", plural(layout->mesh.replicas, "replica"), plural(config.mesh.pipe, "stage"),
                                          plural(layout->mesh.microbatches, "micro-batch", "es"), left)};
}

int ranks_here(const config::TrainConfig& config, const ElasticSettings& settings) {
  if (settings.nproc_per_node > 0) return settings.nproc_per_node;
  if (config.world_size() % settings.max_nodes == 0) return config.world_size() / settings.max_nodes;
  throw error(Code::kInvalidArgument, "mesh.data {} x mesh.pipe {} x mesh.tensor {} = {} ranks do not divide by {} machines; say how many each starts with --nproc-per-node",
              config.mesh.data, config.mesh.pipe, config.mesh.tensor, config.world_size(), settings.max_nodes);
}

std::string name_of_this_life() {
  char host[256] = "?";
  (void)::gethostname(host, sizeof host - 1);
  return fmt::format("{} pid {} #{:x}", host, ::getpid(), now_us() & 0xffffff);
}

// Then all agents are on one machine.
bool is_loopback(const std::string& host) { return host == "localhost" || host == "::1" || host.starts_with("127."); }

class Agent {
 public:
  Agent(const config::TrainConfig& config, const TrainOptions& options, const ElasticSettings& settings)
      : config_(config), options_(options), settings_(settings), before_(newest_checkpoint_of(config)) {
    report_.agent = name_of_this_life();
    report_.job = settings.job;
    report_.node_rank = settings.node_rank;
    report_.num_ranks = ranks_here(config, settings);
    report_.free_port = cluster::free_tcp_port().value();
    check_cores(report_.num_ranks, config.omp_threads, options.oversubscribe);
    if (settings.node_rank == 0) hold_rendezvous();
    const int port = server_ ? server_->port() : settings.port;
    endpoint_ = fmt::format("{}:{}", settings.host, port);
    client_.emplace(server_ ? "127.0.0.1" : settings.host, port);
  }

  int run() {
    for (;;) {
      watch_ranks();
      look_at_signals();
      const Result<AgentOrder> order = client_->report(report_, Deadline::after(std::min<milliseconds>(settings_.dead_after / 3, seconds(5))));
      if (!order) {
        no_answer(order.error());
      } else {
        last_answer_ = Clock::now();
        obey(order.value());
      }
      if (is_over()) return exit_code_;
    }
  }

 private:
  void hold_rendezvous() {
    cluster::RendezvousOptions rendezvous;
    rendezvous.job = settings_.job;
    rendezvous.min_nodes = settings_.min_nodes;
    rendezvous.max_nodes = settings_.max_nodes;
    rendezvous.max_restarts = settings_.max_restarts;
    rendezvous.join_timeout = settings_.join_timeout;
    rendezvous.last_call = settings_.last_call;
    rendezvous.dead_after = settings_.dead_after;
    rendezvous.usable = [this](int available) { return usable_ranks(config_, available); };
    server_ = rpc::RendezvousServer::start(rendezvous, is_loopback(settings_.host), settings_.port).value();
  }

  void watch_ranks() {
    if (!job_) {
      (void)signals_.wait(asked_ + 1, Deadline::after(kReportInterval));
      return;
    }
    job_->watch(Deadline::after(kReportInterval));
    if (job_->running()) return;
    const JobEnd& end = job_->end();
    const bool blameless = end.exit_code == kPeerFailed || cut_off_;
    report_.end = end.exit_code == 0 ? RoundEnd::kFinished : blameless ? RoundEnd::kPeerFailed : RoundEnd::kFailed;
    end_ranks(end.exit_code, end.cause);
  }

  // `cause` by value: it may be the job's own.
  void end_ranks(int exit_code, std::string cause) {
    job_.reset();
    report_.running = false;
    report_.exit_code = exit_code;
    report_.cause = fmt::format("node {}: {}", settings_.node_rank, cause);
    report_.free_port = cluster::free_tcp_port().value();
  }

  void look_at_signals() {
    if (signals_.count() == asked_) return;
    const bool again = asked_ > 0 || signals_.count() > 1;
    asked_ = signals_.count();
    report_.leaving = true;
    leave_by_ = Deadline::after(kLongestStop);
    if (job_ && again) return job_->kill();
    say(job_ ? "stopping after this step (again to end at once)" : "asked to stop");
    stop_ranks();
  }

  void stop_ranks() {
    if (job_ && !stop_sent_) job_->stop();
    stop_sent_ = true;
  }

  // Ranks whose agent the others cannot hear are about to be replaced.
  void no_answer(const Error& reason) {
    const bool refused = reason.code() == Code::kInvalidArgument || reason.code() == Code::kAlreadyExists || reason.code() == Code::kUnimplemented;
    if (refused) throw error(reason.code(), "the rendezvous at {}: {}", endpoint_, reason.message());
    if (end_order_) return;  // it has said all that there was to say
    const auto silent = Clock::now() - last_answer_;
    if (job_ && silent > settings_.dead_after * 2 / 3 && !cut_off_) {
      cut_off_ = true;
      say(fmt::format("the rendezvous at {} (node rank 0) has not answered for {:.1f} s: the ranks here end, as the others go on without them", endpoint_, to_seconds(silent)));
      job_->kill();
    }
    if (silent > settings_.join_timeout) {
      throw error(Code::kUnavailable, "the rendezvous at {} has not answered for {:.0f} s ({}); is the machine of node rank 0 there, and this port open to node {}?", endpoint_,
                  to_seconds(silent), reason.message(), settings_.node_rank);
    }
    if (!job_) say_waiting(fmt::format("for the rendezvous at {}, which the machine of node rank 0 holds", endpoint_));
  }

  void obey(const AgentOrder& order) {
    if (order.kind != AgentOrder::Kind::kWait) waiting_for_.clear();
    switch (order.kind) {
      case AgentOrder::Kind::kWait: return say_waiting(order.text);
      case AgentOrder::Kind::kRun:
        if (order.round != report_.round && !report_.leaving) start(order);
        return;
      case AgentOrder::Kind::kStop:
        if (job_ && !stop_sent_) say(order.text + ": stopping after this step, to start again");
        return stop_ranks();
      case AgentOrder::Kind::kGiveUp:
        if (job_) job_->give_up();
        return;
      case AgentOrder::Kind::kEnd:
        if (!end_order_) leave_by_ = Deadline::after(kTellWait);
        if (job_) job_->give_up();
        end_order_ = order;
        return;
    }
  }

  void say_waiting(const std::string& what) {
    const auto now = Clock::now();
    if (what != waiting_for_) {
      waiting_for_ = what;
      waiting_since_ = now;
      say_next_ = now + kQuietWait;
    }
    if (now < say_next_) return;
    say_next_ = now + kWaitReminder;
    say(fmt::format("node {} waits {} ({:.0f} s)", settings_.node_rank, what, to_seconds(now - waiting_since_)));
  }

  void start(const AgentOrder& order) {
    report_.round = order.round;
    report_.running = true;
    report_.end = RoundEnd::kNone;
    stop_sent_ = cut_off_ = false;
    say(order.text);
    try {
      const Layout layout = layout_for(config_, order.world_size).value();
      cluster::RankGroupOptions ranks;
      ranks.first_rank = order.first_rank;
      ranks.num_ranks = order.num_ranks;
      ranks.world_size = order.world_size;
      ranks.master_addr = settings_.host;
      ranks.master_port = order.master_port;
      ranks.others_on_this_machine = is_loopback(settings_.host);
      ranks.job = fmt::format("{}.{}", settings_.job, order.round);
      job_.emplace(config_, options_for(layout, order), std::move(ranks));
    } catch (const Error& e) {
      report_.end = RoundEnd::kFailed;
      end_ranks(exit_code(e), e.message());
    }
  }

  // Rank 0, which is on node 0, decides by its flags whether the first round begins or goes on. Later rounds go on from this job's checkpoint.
  TrainOptions options_for(const Layout& layout, const AgentOrder& order) {
    TrainOptions options = options_;
    const int global = config_.mesh.data * config_.batch.microbatches;
    options.overrides.push_back(fmt::format("mesh.data={}", layout.mesh.replicas));
    options.overrides.push_back(fmt::format("batch.microbatches={}", layout.mesh.microbatches));
    // As many validated sequences as ever, or a few more.
    options.overrides.push_back(fmt::format("validation.batches={}", (config_.validation.batches * config_.mesh.data + layout.mesh.replicas - 1) / layout.mesh.replicas));
    PENSTOCK_CHECK(layout.mesh.replicas * layout.mesh.microbatches == global, "{} x {} micro-batches, not {}", layout.mesh.replicas, layout.mesh.microbatches, global);
    if (order.restart == 0 && settings_.node_rank == 0) return options;
    // The first round may have ended before it removed an earlier run's checkpoints.
    if (options.overwrite && settings_.node_rank == 0 && newest_checkpoint_of(config_) == before_) {
      std::filesystem::remove_all(std::filesystem::path(config_.output) / "checkpoints");
    }
    options.resume = options.overwrite = false;
    options.auto_resume = true;
    return options;
  }

  // With exit_code_ set.
  bool is_over() {
    if (job_) return false;
    const bool told = !server_ || server_->all_told() || leave_by_.passed();
    if (end_order_ && told) {
      exit_code_ = end_order_->exit_code;
      if (!end_order_->text.empty()) say("the job has ended: " + end_order_->text);
      return true;
    }
    if (!report_.leaving || report_.running) return false;
    exit_code_ = report_.exit_code;
    return !server_ || leave_by_.passed();  // the machine that holds the rendezvous waits for the end of the job
  }

  const config::TrainConfig& config_;
  const TrainOptions& options_;
  const ElasticSettings& settings_;
  const CheckpointStamp before_;
  const StopSignals signals_;
  std::unique_ptr<rpc::RendezvousServer> server_;  // on node 0
  std::optional<rpc::RendezvousClient> client_;
  std::string endpoint_;
  cluster::AgentReport report_;
  std::optional<Job> job_;
  std::optional<AgentOrder> end_order_;
  Clock::time_point last_answer_ = Clock::now();
  std::string waiting_for_;
  Clock::time_point waiting_since_{}, say_next_{};
  Deadline leave_by_ = Deadline::never();
  int asked_ = 0;
  bool stop_sent_ = false;
  bool cut_off_ = false;  // from the rendezvous, so the ranks were ended
  int exit_code_ = 0;
};

}  // namespace

int run_agent(const config::TrainConfig& config, const TrainOptions& options, const ElasticSettings& settings) {
  if (settings.min_nodes < settings.max_nodes && config.checkpoint.every_steps == 0) {
    throw error(Code::kInvalidArgument, "--nnodes {}:{}: a job that loses machines goes on from a checkpoint, but checkpoint.every_steps is 0; set it",
                settings.min_nodes, settings.max_nodes);
  }
  return Agent(config, options, settings).run();
}

}  // namespace penstock
