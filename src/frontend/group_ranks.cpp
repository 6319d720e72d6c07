#include "frontend/group_ranks.h"

#include <utility>

#include "base/log.h"
#include "cluster/log_tail.h"

namespace penstock::frontend {
namespace {

// What an agent gets, besides the grace, to say that its ranks have ended.
constexpr seconds kAgentAnswer{5};

}  // namespace

GroupRanks::GroupRanks(std::unique_ptr<cluster::RankGroup> local, std::unique_ptr<RemoteRanks> remote, std::filesystem::path log_folder,
                       std::vector<std::uintmax_t> log_starts)
    : local_(std::move(local)), remote_(std::move(remote)), log_folder_(std::move(log_folder)), log_starts_(std::move(log_starts)) {}

std::optional<RankEnd> GroupRanks::wait_any(Deadline deadline, int wake) {
  if (remote_) {
    if (auto end = remote_->take_end()) return end;
  }
  if (const auto exit = local_->wait_any(deadline, wake)) {
    const bool killed = exit->status.signalled;
    const bool bad_input = !killed && exit->status.value == 2;  // a worker's word for input that will never work
    return RankEnd{exit->rank, fmt::format("{} {}", killed ? "was" : "ended with", exit->status.describe()), killed, bad_input, log_tail(exit->rank)};
  }
  return remote_ ? remote_->take_end() : std::nullopt;
}

void GroupRanks::kill_all(milliseconds grace) {
  if (remote_) remote_->stop(grace);
  local_->kill_all(grace);
  if (remote_ && !remote_->wait_ended(Deadline::after(grace + kAgentAnswer))) {
    spdlog::warn("machines {} have not said within {} s that their ranks have ended; their devices stay taken until they do", remote_->machines(),
                 kAgentAnswer.count());
  }
}

std::string GroupRanks::log_tail(int rank) const {
  return cluster::log_tail(log_folder_ / fmt::format("rank-{}.log", rank), log_starts_.at(static_cast<size_t>(rank)));
}

}  // namespace penstock::frontend
