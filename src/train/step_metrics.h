#pragma once
// What each step tells: summed over the ranks in one small all-reduce, and turned into the numbers that people read.
// Definitions: docs/benchmarks.md, "Numbers".
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "pipeline/executor.h"
#include "train/data_parallel_reducer.h"
#include "train/stragglers.h"

namespace penstock::train {

// One rank's share of a step. Everything is summed over all ranks.
struct StepSums {
  double loss_sum = 0;         // nats; ranks of the last stage
  double gradient_square = 0;  // each rank's parameters, divided by the number of replicas (their gradients are equal)
  double elapsed_seconds = 0;  // rank 0 only
  double busy_seconds = 0;     // computing forward and backward
  double span_seconds = 0;     // of the first pipe rank, from its first action to its last, times their number
  double exposed_seconds = 0;  // from the end of the last backward to the end of the last reduction
  double bytes = 0;            // validation: bytes predicted
  double stop = 0;             // ranks that were asked to stop
  double targets = 0;          // predicted in this step over all replicas; known to every rank, not summed
  // By rank of the world; each fills its own. Empty, on all ranks alike, in validation.
  std::vector<double> compute_seconds;
  std::vector<double> peak_bytes;  // the most memory that the process has held

  [[nodiscard]] double mean_loss() const { return loss_sum / targets; }  // nats per token

  // Sizes the two, and fills them for this rank from busy_seconds and the operating system.
  void add_own(int rank, int world_size);
  void add_records(const std::vector<pipeline::ActionRecord>& actions, const std::vector<ReductionRecord>& reductions, bool first_rank, int pipe_ranks);
  // Collective over `world`. Every rank ends with the same bits.
  void all_reduce(comm::Communicator& world, Deadline deadline);
};

struct StepReport {
  int64_t step = 0;
  double elapsed_seconds = 0;
  double loss = 0;             // nats per token
  double validation_loss = -1; // nats per byte; −1 = none yet
  double learning_rate = 0;
  double gradient_norm = 0;
  double tokens_per_second = 0;
  double bubble_share = 0;     // idle time of the ranks between first and last action / (ranks · step)
  double exposed_share = 0;    // exposed communication / step time
  double mfu = 0;              // of the peak measured at start; 0 = not measured
  int64_t skipped_steps = 0;   // so far
  double loss_scale = 0;       // of precision fp16, after the step; 0 = none
  double peak_bytes = 0;       // of the rank that has held the most
  std::vector<Straggler> stragglers;  // of the last steps, the slowest first
  bool validated = false;      // validation_loss was measured at this step

  [[nodiscard]] std::string to_json_line() const;
  // What is known, by the names of metrics.jsonl and TensorBoard.
  [[nodiscard]] std::vector<std::pair<std::string_view, double>> scalars() const;
};

// Averages over the steps since the last report, so that a printed number is not one step's noise.
class StepAverages {
 public:
  StepAverages(int num_ranks, int64_t tokens_per_step) : num_ranks_(num_ranks), tokens_per_step_(tokens_per_step) {}
  // `sums` after all_reduce(); `seconds` the whole step on this rank.
  void add(const StepSums& sums, double seconds);
  // Fills loss, tokens_per_second, bubble_share, exposed_share and peak_bytes, and starts anew. REQUIRES: at least one add().
  void report_into(StepReport& report);

 private:
  const int num_ranks_;
  const int64_t tokens_per_step_;
  int steps_ = 0, losses_ = 0;
  double loss_ = 0, seconds_ = 0, busy_ = 0, span_ = 0, exposed_ = 0;
  double peak_bytes_ = 0;
};

// loss.svg from the reports of a run.
[[nodiscard]] std::string loss_chart(const std::vector<StepReport>& reports);

}  // namespace penstock::train
