#pragma once
// What every rank did in a few steps of a run, as one Chrome trace.
#include <string>
#include <vector>

#include "base/chrome_trace.h"
#include "comm/communicator.h"
#include "pipeline/executor.h"
#include "train/data_parallel_reducer.h"
#include "plan/topology.h"

namespace penstock::train {

// Threads: one.
class Timeline {
 public:
  Timeline(const plan::Topology& mesh, const plan::Schedule& schedule, int rank);

  void add_step(int64_t step, const std::vector<pipeline::ActionRecord>& actions, const std::vector<ReductionRecord>& reductions);
  // Another span of this rank, on its compute row, such as the optimizer.
  void add_span(const std::string& name, int64_t start_us, int64_t end_us);

  // Collective over `world`: rank 0 returns the file's content, the others an empty string. Stamps of ranks on different machines
  // are on their own clocks.
  [[nodiscard]] std::string gather(comm::Communicator& world, Deadline deadline);

 private:
  const int rank_;
  ChromeTrace trace_;
};

}  // namespace penstock::train
