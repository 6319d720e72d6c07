#pragma once
// Where the time of a run goes, on the average rank.
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "comm/communicator.h"
#include "pipeline/executor.h"
#include "train/data_parallel_reducer.h"

namespace penstock::train {

enum class Spent {
  kCompute,     // forward and backward
  kStages,      // waiting for activations and gradients of other stages, and sending them
  kReduction,   // waiting for gradients of other replicas after the last backward
  kRanks,       // waiting for the slowest rank at the end of a step
  kOptimizer,
  kData,
  kCheckpoint,  // copying what the background thread then writes, and waiting for the one before
  kValidation,
  kExport,
};
inline constexpr size_t kNumSpent = 9;

// Threads: one.
class TimeAccount {
 public:
  void add(Spent what, double seconds) { seconds_[static_cast<size_t>(what)] += seconds; }
  // The parts of PipelineTrainer::compute_gradients(), which took `seconds`.
  void add_gradients(const std::vector<pipeline::ActionRecord>& actions, const std::vector<ReductionRecord>& reductions, double seconds);

  // Adds the time from its construction to its destruction.
  class Span {
   public:
    Span(TimeAccount& account, Spent what) : account_(account), what_(what) {}
    ~Span() { account_.add(what_, to_seconds(Clock::now() - start_)); }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    TimeAccount& account_;
    const Spent what_;
    const Clock::time_point start_ = Clock::now();
  };

  // Collective over `world`: mean seconds over the ranks, by what they went to; "other" makes them add up to the mean of `wall_seconds`.
  [[nodiscard]] std::vector<std::pair<std::string_view, double>> mean(comm::Communicator& world, double wall_seconds, Deadline deadline) const;

 private:
  std::array<double, kNumSpent> seconds_{};
};

// "    compute                     61.2 s   49.6 %\n", a line for each, and the sum.
[[nodiscard]] std::string time_table(const std::vector<std::pair<std::string_view, double>>& parts);

}  // namespace penstock::train
