#include "worker_agent.h"

#include <charconv>
#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <variant>

#include "base/log.h"
#include "cluster/device_assignment.h"
#include "cluster/log_tail.h"
#include "cluster/process_group.h"
#include "config/environment.h"
#include "config/http_address.h"
#include "stop_signals.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using cluster::RanksReport;

constexpr milliseconds kLookUp{50};    // how often ranks and signals are looked at
constexpr seconds kJoinAgain{1};
constexpr seconds kQuietWait{10};      // between two words about a front door that does not answer
constexpr milliseconds kStopGrace{3000};

// Ranks of one worker group on this machine.
struct Part {
  std::unique_ptr<cluster::RankGroup> ranks;
  fs::path log_folder;
  std::map<int, std::uintmax_t> log_starts;  // by rank
  std::optional<Deadline> kill_at;           // it was told to stop
};

fs::path log_file(const fs::path& folder, int rank) { return folder / fmt::format("rank-{}.log", rank); }

// A name that may stand in a path: what the front door makes of a model's name and a number.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.find('/') == std::string::npos && name[0] != '.' && name.find('\0') == std::string::npos;
}

Result<std::vector<int>> numbers(const std::vector<std::string>& cores) {
  std::vector<int> found;
  for (const std::string& core : cores) {
    int number = 0;
    const auto [end, wrong] = std::from_chars(core.data(), core.data() + core.size(), number);
    if (wrong != std::errc() || end != core.data() + core.size() || number < 0 || number >= CPU_SETSIZE) {
      return error(Code::kInvalidArgument, "'{}' is no core", core.substr(0, 64));
    }
    found.push_back(number);
  }
  return found;
}

class WorkerAgent {
 public:
  explicit WorkerAgent(const WorkerAgentOptions& options) : options_(options) {}

  void run() {
    while (signals_.count() == 0) {
      {
        rpc::AgentClient client(options_.front_door, {cluster::kAgentProtocol, options_.offer, options_.front_door_host});
        const auto lost = serve(client);
        if (!lost) break;
        end_all(*lost);
      }
      (void)signals_.wait(1, Deadline::after(kJoinAgain));
    }
    for (auto& [id, part] : parts_) part.ranks->terminate_all();
    const Deadline patience = Deadline::after(kStopGrace);
    for (auto& [id, part] : parts_) part.ranks->kill_all(patience.remaining());
    spdlog::info("stopped");
  }

 private:
  // Until the connection is lost, and why; nullopt: a signal came.
  std::optional<Error> serve(rpc::AgentClient& client) {
    while (signals_.count() == 0) {
      auto order = client.next(Deadline::after(kLookUp));
      if (!order) return order.error();
      if (*order) obey(client, **order);
      watch(client);
    }
    return std::nullopt;
  }

  // What ran for a front door that does not answer any more, and whether it will ever answer.
  void end_all(const Error& lost) {
    const size_t ended = parts_.size();
    parts_.clear();  // SIGKILL
    if (std::exchange(joined_, false)) {
      spdlog::warn("the connection to {} is lost: {}; {} group(s) ended here", options_.front_door.address, lost.message(), ended);
      say_again_ = Clock::now() + kQuietWait;
      return;
    }
    switch (lost.code()) {
      case Code::kPermissionDenied:
      case Code::kFailedPrecondition:
      case Code::kInvalidArgument:
      case Code::kUnimplemented: throw error(lost.code(), "the front door at {} refuses this agent: {}", options_.front_door.address, lost.message());
      default: break;
    }
    if (Clock::now() < say_again_) return;
    say_again_ = Clock::now() + kQuietWait;
    spdlog::warn("no front door at {} yet: {}; it is tried again every second", options_.front_door.address, lost.message());
  }

  void obey(rpc::AgentClient& client, const rpc::AgentOrder& order) {
    if (std::holds_alternative<rpc::AgentWelcome>(order)) {
      joined_ = true;
      spdlog::info("joined the front door at {} as '{}', with {} GPU(s) and {} core(s)", options_.front_door.address, options_.offer.name,
                   options_.offer.devices.size(), options_.offer.cores.size());
    } else if (const auto* start = std::get_if<cluster::StartRanks>(&order)) {
      auto part = start_part(*start);
      if (part) {
        parts_[start->id] = std::move(*part);
        spdlog::info("{}: ranks {} to {} of {} started", start->group, start->first_rank, start->first_rank + start->num_ranks - 1, start->world_size);
        return;
      }
      spdlog::error("{}: {}", start->group, part.error().message());
      client.report({start->id, RanksReport::Kind::kNotStarted, start->first_rank, {}, part.error().code(), part.error().message()});
      client.report({start->id, RanksReport::Kind::kAllEnded, 0, {}, {}, ""});
    } else if (const auto* stop = std::get_if<cluster::StopRanks>(&order)) {
      const auto found = parts_.find(stop->id);
      if (found == parts_.end()) return;
      found->second.ranks->terminate_all();
      const Deadline kill_at = Deadline::after(stop->grace);
      if (!found->second.kill_at || kill_at.when() < found->second.kill_at->when()) found->second.kill_at = kill_at;
    }
  }

  Result<Part> start_part(const cluster::StartRanks& start) const {
    std::error_code failed;
    if (!is_plain_name(start.group)) return error(Code::kInvalidArgument, "'{}' is no name for a log folder", start.group.substr(0, 64));
    if (!fs::is_directory(start.model_folder, failed)) {
      return error(Code::kNotFound, "there is no folder {} on this machine; the model's files must lie at the same path on every machine", start.model_folder);
    }
    auto cores = numbers(start.cores);
    if (!cores) return cores.error();
    Part part;
    part.log_folder = options_.log_folder / start.group;
    fs::create_directories(part.log_folder, failed);
    if (failed) return error(Code::kUnavailable, "cannot make the log folder {}: {}; choose another with --log-dir", part.log_folder.string(), failed.message());
    for (int rank = start.first_rank; rank < start.first_rank + start.num_ranks; ++rank) {
      part.log_starts[rank] = cluster::log_size(log_file(part.log_folder, rank));
    }
    cluster::RankGroupOptions group;
    group.num_ranks = start.num_ranks;
    group.first_rank = start.first_rank;
    group.world_size = start.world_size;
    group.master_addr = start.master_addr;
    group.master_port = start.master_port;
    group.others_on_this_machine = config::is_loopback(start.master_addr);
    group.job = start.job;
    group.log_folder = part.log_folder;
    if (!cores->empty()) {
      group.cores_per_rank = start.omp_threads;
      group.cores = std::move(*cores);
    }
    group.process.argv = {options_.program.string()};
    group.process.argv.insert(group.process.argv.end(), start.arguments.begin(), start.arguments.end());
    group.process.env = {fmt::format("OMP_NUM_THREADS={}", start.omp_threads), "LOGLEVEL=INFO", "CUDA_VISIBLE_DEVICES=" + cluster::device_list(start.devices)};
    group.process.unset = config::variables_matching(start.hidden_variables);
    auto ranks = cluster::RankGroup::spawn(group);
    if (!ranks) return ranks.error();
    part.ranks = std::move(*ranks);
    return part;
  }

  // Tells the ends of ranks, and kills those that were told to stop and have not.
  void watch(rpc::AgentClient& client) {
    for (auto it = parts_.begin(); it != parts_.end();) {
      auto& [id, part] = *it;
      if (part.kill_at && part.kill_at->passed()) part.ranks->kill_all(milliseconds(0));
      while (const auto end = part.ranks->wait_any(Deadline::after(milliseconds(0)))) {
        if (part.kill_at) continue;
        spdlog::warn("{}: rank {} {}", part.log_folder.filename().string(), end->rank, end->status.describe());
        client.report({id, RanksReport::Kind::kRankEnded, end->rank, end->status, {}, cluster::log_tail(log_file(part.log_folder, end->rank), part.log_starts[end->rank])});
      }
      if (!part.ranks->all_reported()) {
        ++it;
        continue;
      }
      client.report({id, RanksReport::Kind::kAllEnded, 0, {}, {}, ""});
      it = parts_.erase(it);
    }
  }

  const WorkerAgentOptions& options_;
  const StopSignals signals_;
  std::map<uint64_t, Part> parts_;
  bool joined_ = false;
  Clock::time_point say_again_{};
};

}  // namespace

void run_worker_agent(const WorkerAgentOptions& options) { WorkerAgent(options).run(); }

}  // namespace penstock
