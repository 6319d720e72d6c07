#include "engine/tensor_link.h"

#include "engine/plan_message.h"

namespace penstock::engine {

void TensorLink::broadcast(at::Tensor& tensor, Deadline deadline) {
  if (tensor.numel() > 0) ranks_.group().broadcast(tensor, 0)->wait(deadline);
}

void TensorLink::send_plan(const StepPlan& plan) {
  for (at::Tensor& piece : to_pieces(plan)) broadcast(piece, deadline());
}

void TensorLink::send_step(const StepPlan& plan, const at::Tensor& input) {
  send_plan(plan);
  at::Tensor contiguous = input.cpu().contiguous();
  broadcast(contiguous, deadline());
}

StepPlan TensorLink::recv_plan(Deadline first) {
  return from_pieces([&](at::Tensor& piece, bool is_first) { broadcast(piece, is_first ? first : deadline()); }, max_sequences_);
}

at::Tensor TensorLink::recv_ids(int rows) {
  at::Tensor ids = at::empty({rows}, at::kLong);
  broadcast(ids, deadline());
  return ids;
}

at::Tensor TensorLink::recv_hidden(int rows, int64_t width) {
  at::Tensor hidden = at::empty({rows, width}, at::kFloat);
  broadcast(hidden, deadline());
  return hidden;
}

}  // namespace penstock::engine
