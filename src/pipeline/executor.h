#pragma once
// Carries out one rank's list of a schedule.
#include <functional>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "pipeline/stage.h"
#include "pipeline/tensor_link.h"
#include "plan/schedule.h"

namespace penstock::pipeline {

// What the first stage reads and what the last stage compares with.
struct Microbatch {
  model::Tensors inputs;
  model::Tensors targets;
};

// The loss of one micro-batch as a scalar *sum* over its items (tokens); the executor scales its gradient.
using LossFunction = std::function<at::Tensor(const model::Tensors& outputs, const model::Tensors& targets)>;

// When an action ran on this rank; microseconds of base/clock.h's now_us(). A receive is posted where the schedule says and lasts, here, as
// long as the rank then waited for it: right before the action that needs it.
struct ActionRecord {
  plan::Action action;
  int64_t start_us = 0;
  int64_t end_us = 0;
};

struct StepRequest {
  const plan::Schedule* schedule = nullptr;   // with communication, proven free of deadlock; one action list for each rank of the pipe group
  std::span<const Microbatch> microbatches;   // num_microbatches of them; inputs are used on the first stage, targets on the last
  LossFunction loss;                          // last stage only; may be empty for inference, then outputs are returned
  double loss_scale = 1;                      // multiplies the loss before its backward, e.g. 1 / tokens of the whole step
  bool training = true;                       // false: no graph is kept, backward actions are refused
  kernels::Compute compute = kernels::Compute::kFp32;
  // Called before the backward that completes this rank's gradients of a stage: from then on gradients may be reduced.
  std::function<void(int stage)> before_last_backward;
};

struct StepResult {
  double loss_sum = 0;                          // over this rank's micro-batches, unscaled; 0 unless this rank has the last stage
  std::map<int, model::Tensors> outputs;        // by micro-batch: outputs of the last stage when there is no loss function
  std::vector<ActionRecord> records;            // in order
};

// One executor for every schedule: training and inference, one stage a rank or several.
//
// Threads:  one thread. Gradients accumulate into the parameters' grad().
// Blocking: every receive has the deadline given at construction; sends never wait, and are flushed at the end of the step.
// Errors:   Error with rank, stage, action and micro-batch in front of the cause. The step is then lost and the group dead.
class Executor {
 public:
  // `pipe`: the ranks that share the model, in pipeline order. `stages`: this rank's, by rising index.
  Executor(comm::Communicator& pipe, std::vector<Stage*> stages, seconds timeout);

  [[nodiscard]] StepResult run(const StepRequest& request);

 private:
  // A stage and a micro-batch.
  using Cell = std::pair<int, int>;
  struct Activation {
    model::Tensors inputs;
    model::Tensors outputs;
  };
  void carry_out(const plan::Action& action, const StepRequest& request, StepResult& result);
  void post_receive(const plan::Action& action);
  void wait_for_inputs(const plan::Action& action, const StepRequest& request, StepResult& result);
  void wait_for(const plan::Action& receive, const StepRequest& request);
  void forward(const plan::Action& action, const StepRequest& request, StepResult& result);
  void backward(const plan::Action& action, const StepRequest& request);
  Stage& stage(int index);
  [[nodiscard]] bool is_here(int stage) const;
  [[nodiscard]] int rank_of(int stage) const;
  [[nodiscard]] int key(int stage, int microbatch) const { return microbatch * num_stages_ + stage; }  // of the message into a stage

  comm::Communicator& pipe_;
  const std::vector<Stage*> stages_;
  const seconds timeout_;
  TensorLink link_;
  int num_stages_ = 0;
  std::map<Cell, TensorLink::Expected> expected_inputs_;     // posted receives
  std::map<Cell, TensorLink::Expected> expected_gradients_;
  std::map<Cell, model::Tensors> arrived_;    // inputs of a stage, before its forward
  std::map<Cell, Activation> live_;           // after forward, before backward (or until sent)
  std::map<Cell, model::Tensors> gradients_;  // of a stage's outputs, before its backward
  std::map<Cell, model::Tensors> outgoing_;   // gradients of a stage's inputs, before they are sent
  std::map<int, int> backwards_left_;         // by stage
};

}  // namespace penstock::pipeline
