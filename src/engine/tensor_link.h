#pragma once
// Steps from the rank that leads a stage to those that share its layers.
#include <span>

#include "comm/communicator.h"
#include "engine/step_plan.h"
#include "model/tensor_ranks.h"

namespace penstock::engine {

// Threads:  one, the one that computes: what it sends and what layers sum are collectives of one group.
// Blocking: every call waits for all ranks of the stage, the leader at most TensorRanks::timeout().
// Errors:   throws Error naming group and rank.
class TensorLink {
 public:
  TensorLink(const model::TensorRanks& ranks, int max_sequences) : ranks_(ranks), max_sequences_(max_sequences) {}

  // Leader. `input`: token ids [N] or hidden [N, D].
  void send_step(const StepPlan& plan, const at::Tensor& input);
  void send_plan(const StepPlan& plan);

  // The others: recv_plan(), and for one that computes the input.
  [[nodiscard]] StepPlan recv_plan(Deadline deadline);
  [[nodiscard]] at::Tensor recv_ids(int rows);
  [[nodiscard]] at::Tensor recv_hidden(int rows, int64_t width);

 private:
  void broadcast(at::Tensor& tensor, Deadline deadline);
  [[nodiscard]] Deadline deadline() const { return Deadline::after(ranks_.timeout()); }

  const model::TensorRanks& ranks_;
  const int max_sequences_;
};

}  // namespace penstock::engine
