#pragma once
// Messages between the stages of a served model: plans and activations forward, sampled tokens from the last stage to the first.
#include <deque>
#include <optional>
#include <vector>

#include "comm/communicator.h"
#include "engine/step_plan.h"
#include "model/layer.h"

namespace penstock::engine {

// Threads:  one thread.
// Blocking: sends never wait for the other side; they are kept until delivered, at most a few steps' worth (an older one is then waited for).
class StageLink {
 public:
  StageLink(comm::Communicator& stages, int max_sequences, seconds timeout) : stages_(stages), max_sequences_(max_sequences), timeout_(timeout) {}

  void send_plan(const StepPlan& plan);           // to the next stage
  [[nodiscard]] StepPlan recv_plan(Deadline deadline);  // from the previous stage
  void send_hidden(const at::Tensor& hidden);     // [N, D] float32 on any device, to the next stage
  [[nodiscard]] at::Tensor recv_hidden(int rows, int64_t width);

  // Last stage to first, of every step: one that samples nothing has none, and the message says that it is done.
  void send_samples(const StepPlan& plan, const std::vector<SampledToken>& tokens);
  // Posts the receive of the tokens of a step that has been sent; wait_samples() answers in the order of the posts.
  void expect_samples(const StepPlan& plan);
  [[nodiscard]] std::vector<SampledToken> wait_samples(const StepPlan& plan);

  void flush();

 private:
  void post(at::Tensor tensor, int to, int tag);
  struct Pending {
    at::Tensor tensor;
    comm::WorkPtr work;
  };
  comm::Communicator& stages_;
  const int max_sequences_;
  const seconds timeout_;
  std::deque<Pending> sends_;
  std::deque<Pending> expected_samples_;
};

}  // namespace penstock::engine
