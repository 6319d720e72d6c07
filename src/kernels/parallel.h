#pragma once
// Loops of kernels: on a team where one was lent to the calling thread, else on OpenMP's threads.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>

#include "kernels/thread_team.h"

namespace penstock::kernels {

// While it lives, the loops of the thread that made it run on `team`, and LibTorch's and oneDNN's own loops stay on that thread: OpenMP's threads would
// otherwise spin for the cores that the team computes on. Products without gradients are then those of serving (kernels/linear.cpp). The team must outlive it.
class TeamScope {
 public:
  explicit TeamScope(ThreadTeam& team);
  ~TeamScope();
  TeamScope(const TeamScope&) = delete;
  TeamScope& operator=(const TeamScope&) = delete;

 private:
  ThreadTeam* const before_;
  const int openmp_threads_;
};

// Within a TeamScope: LibTorch's loops run on as many of OpenMP's threads as the team has, and ours, too. For what only LibTorch has; OpenMP's threads go on
// spinning for a while. Without a team it does nothing.
class OpenMpScope {
 public:
  OpenMpScope();
  ~OpenMpScope();
  OpenMpScope(const OpenMpScope&) = delete;
  OpenMpScope& operator=(const OpenMpScope&) = delete;

 private:
  ThreadTeam* const team_;
};

// Null without one.
[[nodiscard]] ThreadTeam* current_team();

// As at::parallel_for: body(first, last) for parts of [begin, end) of at least `grain`, except the last.
template <typename Body>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body& body) {
  ThreadTeam* team = current_team();
  if (team == nullptr) return at::parallel_for(begin, end, grain, body);
  const int64_t count = end - begin;
  if (count <= 0) return;
  constexpr int64_t kPiecesPerThread = 16;  // a thread that is slower takes fewer of them
  const int64_t most = std::max<int64_t>(1, count / std::max<int64_t>(1, grain)), pieces = std::min(most, kPiecesPerThread * team->threads());
  team->run(pieces, [&](int64_t i) { body(begin + count * i / pieces, begin + count * (i + 1) / pieces); });
}

}  // namespace penstock::kernels
