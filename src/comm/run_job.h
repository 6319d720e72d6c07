#pragma once
// A program's ranks, wherever it was started.
#include <functional>

#include "comm/communicator.h"

namespace penstock::comm {

// Under a launcher (torchrun, mpirun, srun, Kubernetes, penstock: RANK, OMPI_*, PMI_*, SLURM_*) this process is one rank of a job of `size`: connects
// to the others and calls body with its communicator. Without one, runs `size` ranks as threads of this process.
// Returns when body has ended on this process's ranks, and, under a launcher, on all. Throws what body throws; Error kInvalidArgument when the
// launcher started another number of ranks.
void run_job(int size, const std::function<void(Communicator&)>& body);

}  // namespace penstock::comm
