#include "cluster/process_group.h"

#include "cluster/core_sets.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "cluster/launch_env.h"
#include "cluster/poll_timeout.h"

namespace penstock::cluster {
namespace {

void add_variables(ProcessOptions& process, RankVariables kind, const RankInfo& info) {
  const auto add = [&process](const std::vector<std::string>& variables) { process.env.insert(process.env.end(), variables.begin(), variables.end()); };
  if (kind == RankVariables::kNone) {
    for (std::string& name : rank_variable_names()) process.unset.push_back(std::move(name));
    return;
  }
  add(rank_environment(info));
  if (kind == RankVariables::kTorchrun) add(torchrun_environment(info));
}

}  // namespace

std::string new_job_name() { return fmt::format("{}-{}", ::getpid(), Clock::now().time_since_epoch().count()); }

Result<int> free_tcp_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return error(Code::kUnavailable, "cannot make a socket to find a free port: {}", std::strerror(errno));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);  // free on every interface, as rank 0 may listen on all
  socklen_t size = sizeof address;
  const bool found =
      ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 && ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  const int number = errno;
  ::close(fd);
  if (!found) return error(Code::kUnavailable, "cannot find a free TCP port: {}", std::strerror(number));
  return static_cast<int>(ntohs(address.sin_port));
}

Result<std::unique_ptr<RankGroup>> RankGroup::spawn(const RankGroupOptions& options) {
  PENSTOCK_CHECK(options.num_ranks >= 1, "a group of {} ranks", options.num_ranks);
  PENSTOCK_CHECK(options.variables != RankVariables::kNone || options.num_ranks == 1, "{} processes that know nothing of each other", options.num_ranks);
  RankInfo info;
  info.world_size = options.world_size > 0 ? options.world_size : options.num_ranks;
  info.local_world_size = options.others_on_this_machine ? info.world_size : options.num_ranks;
  info.master_addr = options.master_addr;
  info.master_port = options.master_port;
  if (info.master_port == 0) {
    Result<int> port = free_tcp_port();
    if (!port) return port.error();
    info.master_port = *port;
  }
  info.job = !options.job.empty() ? options.job : new_job_name();
  const std::vector<int> usable = options.cores.empty() ? usable_cores() : std::vector<int>();
  std::vector<std::unique_ptr<ChildProcess>> ranks;
  for (int local = 0; local < options.num_ranks; ++local) {
    const int rank = options.first_rank + local;
    info.rank = rank;
    info.local_rank = options.others_on_this_machine ? rank : local;
    ProcessOptions process = options.process;
    add_variables(process, options.variables, info);
    process.cores = options.cores.empty() ? cores_of_rank(info.local_rank, info.local_world_size, options.cores_per_rank, usable)
                                          : cores_of_rank(local, options.num_ranks, options.cores_per_rank, options.cores);
    if (options.log_folder) process.log_file = *options.log_folder / fmt::format("rank-{}.log", rank);
    Result<std::unique_ptr<ChildProcess>> child = ChildProcess::spawn(std::move(process));
    if (!child) return error(child.error().code(), "rank {} of {}: {}", rank, info.world_size, child.error().message());
    ranks.push_back(std::move(*child));
  }
  return std::unique_ptr<RankGroup>(new RankGroup(std::move(ranks), options.first_rank, info.master_port));
}

RankGroup::RankGroup(std::vector<std::unique_ptr<ChildProcess>> ranks, int first_rank, int master_port)
    : ranks_(std::move(ranks)), first_rank_(first_rank), master_port_(master_port), reported_(ranks_.size(), false) {}

RankGroup::~RankGroup() {
  for (const auto& rank : ranks_) rank->kill();  // all at once; each destructor then waits for its own
}

std::optional<RankExit> RankGroup::wait_any(Deadline deadline, int wake) {
  for (;;) {
    std::vector<pollfd> running;
    {
      MutexLock lock(mutex_);
      for (size_t rank = 0; rank < ranks_.size(); ++rank) {
        if (reported_[rank]) continue;
        if (const auto status = ranks_[rank]->try_wait()) {
          reported_[rank] = true;
          return RankExit{first_rank_ + static_cast<int>(rank), *status};
        }
        running.push_back({.fd = ranks_[rank]->pid_fd(), .events = POLLIN, .revents = 0});
      }
    }
    if (running.empty() || deadline.passed()) return std::nullopt;
    running.push_back({.fd = wake, .events = POLLIN, .revents = 0});  // poll ignores -1
    ::poll(running.data(), running.size(), poll_timeout(deadline));
    if ((running.back().revents & POLLIN) != 0) return std::nullopt;
  }
}

bool RankGroup::all_reported() const {
  MutexLock lock(mutex_);
  return std::all_of(reported_.begin(), reported_.end(), [](bool reported) { return reported; });
}

void RankGroup::terminate_all() {
  for (const auto& rank : ranks_) rank->terminate();
}

void RankGroup::kill_all(milliseconds grace) {
  terminate_all();
  const Deadline patience = Deadline::after(grace);
  for (const auto& rank : ranks_) {
    if (!rank->wait(patience)) break;
  }
  for (const auto& rank : ranks_) rank->kill();
  for (const auto& rank : ranks_) static_cast<void>(rank->wait(Deadline::never()));  // SIGKILL cannot be refused
}

std::vector<pid_t> RankGroup::pids() const {
  std::vector<pid_t> pids;
  for (const auto& rank : ranks_) pids.push_back(rank->pid());
  return pids;
}

}  // namespace penstock::cluster
