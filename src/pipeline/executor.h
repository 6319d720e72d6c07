#pragma once
// Carries out one rank's list of a schedule.
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "pipeline/activation.h"
#include "pipeline/stage.h"
#include "pipeline/tensor_link.h"
#include "plan/schedule.h"

namespace penstock::pipeline {

// What the first stage reads and what the last stage compares with.
struct Microbatch {
  model::Tensors inputs;
  model::Tensors targets;
  bool counts = true;  // false: runs because the schedule has it, and adds nothing to loss, gradients and outputs
};

// The loss of one micro-batch as a scalar *sum* over its items (tokens); the executor scales its gradient.
using LossFunction = std::function<at::Tensor(const model::Tensors& outputs, const model::Tensors& targets)>;

// When an action ran on this rank; microseconds of base/clock.h's now_us(). On a GPU, which computes behind the thread's back: computing ends when the GPU has
// done it, with several pipe ranks for each action, with one for the last. A receive is posted where the schedule says and lasts, here, as
// long as the rank then waited for it: right before the action that needs it.
struct ActionRecord {
  plan::Action action;
  int64_t start_us = 0;
  int64_t end_us = 0;
};

struct StepRequest {
  const plan::Schedule* schedule = nullptr;   // plan::proven(); one action list for each rank of the pipe group
  std::span<const Microbatch> microbatches;   // num_microbatches of them; inputs are used on the first stage, targets on the last
  LossFunction loss;                          // last stage only; may be empty in inference
  double loss_scale = 1;                      // multiplies the loss before its backward, e.g. 1 / tokens of the whole step
  bool training = true;                       // false: no graph is kept, backward actions are refused
  bool keep_outputs = false;                  // return the last stage's outputs of every micro-batch, detached
  kernels::Compute compute = kernels::Compute::kFp32;

  // Called before the gradients of a stage get their last addition: from then on they may be reduced. `pending` are the parameters that
  // weight_grad_complete will tell one by one; null: autograd's hooks tell, for every parameter.
  std::function<void(int stage, const std::vector<at::Tensor>* pending)> before_last_backward;
  std::function<void(const at::Tensor& parameter)> weight_grad_complete;  // of every micro-batch
  std::function<void(int stage)> after_weight_grads;  // where the schedule splits a stage's backward passes: each time its weight gradients were added
};

struct StepResult {
  double loss_sum = 0;                          // over this rank's micro-batches, unscaled; 0 unless this rank has the last stage
  int first_not_finite = -1;                    // micro-batch whose loss is NaN or infinite; -1 = none
  std::map<int, model::Tensors> outputs;        // by micro-batch, with keep_outputs
  std::vector<ActionRecord> records;            // in order
};

// One executor for every schedule: training and inference, one stage a rank or several.
//
// Threads:  one thread. Gradients accumulate into the parameters' grad().
// Blocking: every wait has the deadline given at construction. Receives are posted where the list has them and waited for by the action that
//           needs them; sends do not wait for their receivers, but few may be on their way at once (tensor_link.h).
// Memory:   an activation lives from its forward to its backward or input gradient, what a weight gradient needs until that; receive buffers
//           are used again from step to step.
// Errors:   Error with rank, stage, action and micro-batch in front of the cause. The step is then lost and the group dead.
class Executor {
 public:
  // `pipe`: the ranks that share the model, in pipeline order. `stages`: this rank's, as the schedules place them.
  Executor(comm::Communicator& pipe, std::vector<Stage*> stages, seconds timeout);

  [[nodiscard]] StepResult run(const StepRequest& request);

 private:
  // A stage and a micro-batch.
  struct Cell {
    std::optional<TensorLink::Expected> expected_inputs, expected_gradients;  // posted receives
    std::optional<model::Tensors> gradients;        // of the stage's outputs, before its backward
    std::optional<model::Tensors> input_gradients;  // before they are sent
    std::optional<model::Tensors> inputs;           // before its forward
    bool live = false;                              // forwarded, and not yet backwarded (in inference: not yet sent)
    Activation activation;
    model::Tensors loss_inputs;                     // last stage: leaves on the outputs
    at::Tensor loss;
  };
  struct Loss {
    int microbatch = 0;
    at::Tensor value;  // a scalar, where it was computed
  };

  void begin(const StepRequest& request);
  void finish();
  void carry_out(const plan::Action& action);
  void post_receive(const plan::Action& action);
  void wait_for_inputs(const plan::Action& action);
  void wait_for(const plan::Action& receive, Cell& cell);
  void send(const plan::Action& action);
  void forward(const plan::Action& action);
  void compute_loss(const plan::Action& action, Cell& cell);
  void sum_losses();
  void await_device() const;
  void backward(const plan::Action& action);
  void weight_grad(const plan::Action& action);
  void hand_input_gradients_on(const plan::Action& action, Cell& cell);
  void drop(Cell& cell);
  void announce_last(int stage, const std::vector<at::Tensor>* pending);
  [[nodiscard]] model::ForwardContext context_for(int stage, Cell& cell) const;

  Stage& stage(int index);
  Cell& cell(int stage, int microbatch);
  [[nodiscard]] bool is_here(int stage) const;
  [[nodiscard]] int key(int stage, int microbatch) const { return microbatch * num_stages_ + stage; }  // of the message into a stage

  comm::Communicator& pipe_;
  const std::vector<Stage*> stages_;
  const seconds timeout_;
  const int num_stages_;
  TensorLink link_;
  std::vector<int> local_index_;     // by stage; -1 = on another rank
  std::vector<Cell> cells_;          // by local stage and micro-batch; kept from step to step
  std::vector<int> weights_left_;    // by stage: actions that complete weight gradients
  std::vector<bool> splits_;         // by stage: the list has weight gradients apart
  bool clean_ = true;                // the last step came to its end
  const StepRequest* request_ = nullptr;
  std::vector<Loss> losses_;         // of the step, in the order of the actions
  StepResult result_;
};

}  // namespace penstock::pipeline
