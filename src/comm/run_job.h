#pragma once
// A program's ranks, wherever it was started.
#include <functional>

#include "comm/communicator.h"

namespace penstock::comm {

// Under a launcher (torchrun, mpirun, srun, Kubernetes: RANK, OMPI_*, PMI_*, SLURM_*) this process is one rank of a job of `size`: connects to the
// others and calls body with its communicator. Without one, runs `size` ranks as threads of this process.
//
// Returns when body has ended on all ranks. Ranks as threads: throws what body throws first.
// Ranks as processes: whatever ends a rank ends the others within seconds (Liveness). The rank whose body throws prints the error on stderr and
// ends its process with exit code 1; the others print which rank failed and why, and end with 75: a thread that is stuck in the network cannot
// be unwound.
// Throws Error kInvalidArgument when the launcher started another number of ranks, and what connect_c10d() throws.
void run_job(int size, const std::function<void(Communicator&)>& body);

}  // namespace penstock::comm
