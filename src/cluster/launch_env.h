#pragma once
// Which rank of a job this process is, as its launcher says, and how we say it to the ranks that we start.
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/environment.h"

namespace penstock::cluster {

struct RankInfo {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;        // among the ranks of this machine
  int local_world_size = 1;
  std::string master_addr = "127.0.0.1";  // where rank 0 listens
  int master_port = 29500;
  std::string job = {};  // the launcher's name for this job, the same on all its ranks; empty = it gives none

  bool operator==(const RankInfo&) const = default;
};

// Reads RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE (torchrun), else OMPI_COMM_WORLD_* (mpirun), else PMI_RANK and PMI_SIZE (MPICH), else
// SLURM_* of an srun step, else JOB_COMPLETION_INDEX with a WORLD_SIZE of the manifest (a Kubernetes Indexed Job); MASTER_ADDR and
// MASTER_PORT in all cases. nullopt when no launcher speaks. A single Slurm task is no rank, as it may be an interactive shell.
// The job's name: PENSTOCK_JOB_ID, else that of torchrun, mpirun or Slurm. Absent MASTER_PORT is a port made of the job's name, 29500 without one;
// absent MASTER_ADDR is this machine when all ranks are on it, else Slurm's first node.
// Errors: kInvalidArgument naming the variables that are half set, contradict each other or are no numbers; kUnimplemented for a torchrun that holds
// MASTER_PORT itself.
[[nodiscard]] Result<std::optional<RankInfo>> rank_from_environment(const config::Environment& environment = config::process_environment());

// "NAME=value" for a rank that we start; rank_from_environment() reads the same RankInfo from it.
[[nodiscard]] std::vector<std::string> rank_environment(const RankInfo& info);

// What torchrun sets besides, for Python programs that ask for it: groups (machines) of local_world_size ranks each, one role, never restarted by torchrun.
[[nodiscard]] std::vector<std::string> torchrun_environment(const RankInfo& info);

// The names of all these: what a process that is no rank of a job must not inherit.
[[nodiscard]] std::vector<std::string> rank_variable_names();

}  // namespace penstock::cluster
