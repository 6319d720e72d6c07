#pragma once
// The ranks of one job as processes of a test program, each with a log of its own.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/temp_dir.h"
#include "cluster/launch_env.h"
#include "cluster/process.h"
#include "comm/network_address.h"

namespace penstock {

class RankProcesses {
 public:
  // Starts `world_size` times PROGRAM ARGUMENTS..., told by the environment which rank each is.
  RankProcesses(const std::string& program, int world_size, const std::vector<std::string>& arguments = {}) {
    const int port = comm::find_free_port();
    for (int rank = 0; rank < world_size; ++rank) {
      cluster::ProcessOptions options;
      options.argv = {program};
      options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
      options.env = cluster::rank_environment({rank, world_size, rank, world_size, "127.0.0.1", port});
      options.env.emplace_back("OMP_NUM_THREADS=1");
      options.log_file = log_file(rank);
      ranks_.push_back(cluster::ChildProcess::spawn(options).value());
    }
  }

  [[nodiscard]] int size() const { return static_cast<int>(ranks_.size()); }
  [[nodiscard]] std::string log(int rank) const { return read_file(log_file(rank), 1 << 20).value(); }
  cluster::ChildProcess& rank(int rank) { return *ranks_[static_cast<size_t>(rank)]; }

  // Waits until every rank has written `text`.
  void expect_all_say(const std::string& text) const {
    const Deadline deadline = Deadline::after(seconds(100));
    for (int rank = 0; rank < size(); ++rank) {
      while (log(rank).find(text) == std::string::npos && !deadline.passed()) std::this_thread::sleep_for(milliseconds(20));
      ASSERT_NE(log(rank).find(text), std::string::npos) << "rank " << rank << ":\n" << log(rank);
    }
  }

  // All but `victim` end with exit code 75 in time, and their logs name it.
  void expect_others_name(int victim, Deadline deadline) {
    for (int rank = 0; rank < size(); ++rank) {
      if (rank == victim) continue;
      const auto status = this->rank(rank).wait(deadline);
      ASSERT_TRUE(status) << "rank " << rank << " still runs after the deadline:\n" << log(rank);
      EXPECT_EQ(status->describe(), "exit code 75") << log(rank);
      // Rank 0 may be lost before the others have read who it is from its store; its number they always know.
      const std::string pid = " (pid " + std::to_string(this->rank(victim).pid()) + " on ";
      const std::string who = "rank " + std::to_string(victim);
      const bool named = log(rank).find(who + pid) != std::string::npos || (victim == 0 && log(rank).find(who + ", which holds") != std::string::npos);
      EXPECT_TRUE(named) << "rank " << rank << ":\n" << log(rank);
    }
  }

 private:
  [[nodiscard]] std::filesystem::path log_file(int rank) const { return folder_.path() / (std::to_string(rank) + ".log"); }
  const TempDir folder_;
  std::vector<std::unique_ptr<cluster::ChildProcess>> ranks_;
};

}  // namespace penstock
