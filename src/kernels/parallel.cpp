#include "kernels/parallel.h"

#include <ATen/Parallel.h>
#include <omp.h>

namespace penstock::kernels {
namespace {

thread_local ThreadTeam* current = nullptr;

// LibTorch sets the number at a thread's first loop unless it was asked before, which would undo a scope.
int openmp_threads() {
  const int threads = omp_get_max_threads();
  (void)at::get_num_threads();
  return threads;
}

}  // namespace

TeamScope::TeamScope(ThreadTeam& team) : before_(current), openmp_threads_(openmp_threads()) {
  current = &team;
  omp_set_num_threads(1);  // of this thread's loops only
}

TeamScope::~TeamScope() {
  current = before_;
  omp_set_num_threads(openmp_threads_);
}

OpenMpScope::OpenMpScope() : team_(current) {
  if (team_ == nullptr) return;
  current = nullptr;
  omp_set_num_threads(team_->threads());
}

OpenMpScope::~OpenMpScope() {
  if (team_ == nullptr) return;
  current = team_;
  omp_set_num_threads(1);
}

ThreadTeam* current_team() { return current; }

}  // namespace penstock::kernels
