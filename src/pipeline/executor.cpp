#include "pipeline/executor.h"

#include <torch/csrc/autograd/autograd.h>

#include "base/error.h"

namespace penstock::pipeline {
namespace {

using plan::Action;
using plan::ActionKind;

at::Tensor gradient_or_zeros(const at::Tensor& t) { return t.grad().defined() ? t.grad() : at::zeros_like(t); }

// Takes a value out of a map; a missing one means that the schedule lied.
template <typename Map>
typename Map::mapped_type take(Map& map, const typename Map::key_type& cell, const char* what) {
  auto node = map.extract(cell);
  PENSTOCK_CHECK(!node.empty(), "stage {} has no {} of micro-batch {}", cell.first, what, cell.second);
  return std::move(node.mapped());
}

// Runs `work`, and puts in front of its Error where it happened.
template <typename F>
void named(int rank, const Action& action, F work) {
  try {
    work();
  } catch (const Error& e) {
    throw error(e.code(), "rank {}, stage {}, action {} of micro-batch {}: {}", rank, action.stage, plan::to_string(action.kind),
                action.microbatch, e.message());
  }
}

}  // namespace

Executor::Executor(comm::Communicator& pipe, std::vector<Stage*> stages, seconds timeout)
    : pipe_(pipe), stages_(std::move(stages)), timeout_(timeout), link_(pipe) {
  PENSTOCK_CHECK(!stages_.empty(), "a rank without a stage");
  num_stages_ = stages_.front()->num_stages();
}

int Executor::rank_of(int stage) const { return stage % pipe_.size(); }
bool Executor::is_here(int stage) const { return rank_of(stage) == pipe_.rank(); }

Stage& Executor::stage(int index) {
  for (Stage* s : stages_) {
    if (s->index() == index) return *s;
  }
  throw Bug(fmt::format("stage {} is not on this rank", index));
}

StepResult Executor::run(const StepRequest& request) {
  const auto& actions = request.schedule->ranks.at(static_cast<size_t>(pipe_.rank()));
  backwards_left_.clear();
  for (const Action& a : actions) backwards_left_[a.stage] += a.kind == ActionKind::kBackward ? 1 : 0;
  StepResult result;
  result.records.reserve(actions.size());
  for (const Action& action : actions) {
    if (plan::is_recv(action.kind)) {
      named(pipe_.rank(), action, [&] { post_receive(action); });
      continue;
    }
    wait_for_inputs(action, request, result);
    const int64_t start_us = now_us();
    named(pipe_.rank(), action, [&] { carry_out(action, request, result); });
    result.records.push_back({action, start_us, now_us()});
  }
  link_.flush(Deadline::after(timeout_));
  PENSTOCK_CHECK(expected_inputs_.empty() && expected_gradients_.empty() && arrived_.empty() && gradients_.empty() && outgoing_.empty(), "the schedule left values behind");
  live_.clear();
  return result;
}

void Executor::carry_out(const Action& action, const StepRequest& request, StepResult& result) {
  const Cell cell{action.stage, action.microbatch};
  switch (action.kind) {
    case ActionKind::kForward: return forward(action, request, result);
    case ActionKind::kBackward: return backward(action, request);
    case ActionKind::kSendForward: {
      const auto found = live_.find(cell);
      PENSTOCK_CHECK(found != live_.end(), "stage {} has no output of micro-batch {} to send", action.stage, action.microbatch);
      link_.send_activation(rank_of(action.stage + 1), key(action.stage + 1, action.microbatch), found->second.outputs);
      if (!request.training) live_.erase(found);
      return;
    }
    case ActionKind::kSendBackward:
      return link_.send_gradients(rank_of(action.stage - 1), key(action.stage - 1, action.microbatch), take(outgoing_, cell, "input gradient"));
    case ActionKind::kInputGrad:
    case ActionKind::kWeightGrad:
      throw error(Code::kUnimplemented, "split backward passes (zero-bubble schedules) are not supported yet");
    case ActionKind::kRecvForward:
    case ActionKind::kRecvBackward: break;  // posted by run()
  }
}

// A receive only makes room; the action that needs the message waits for it. Waiting here would hold up what stands in between.
void Executor::post_receive(const Action& action) {
  const Cell cell{action.stage, action.microbatch};
  const int number = key(action.stage, action.microbatch);
  if (action.kind == ActionKind::kRecvForward) {
    expected_inputs_[cell] = link_.expect_activation(rank_of(action.stage - 1), number);
  } else {
    expected_gradients_[cell] = link_.expect_gradients(rank_of(action.stage + 1), number, live_.at(cell).outputs);
  }
}

void Executor::wait_for_inputs(const Action& action, const StepRequest& request, StepResult& result) {
  const Cell cell{action.stage, action.microbatch};
  const bool forward = action.kind == ActionKind::kForward && expected_inputs_.contains(cell);
  const bool backward = action.kind == ActionKind::kBackward && expected_gradients_.contains(cell);
  if (!forward && !backward) return;
  const Action receive{forward ? ActionKind::kRecvForward : ActionKind::kRecvBackward, action.stage, action.microbatch};
  const int64_t start_us = now_us();
  named(pipe_.rank(), receive, [&] { wait_for(receive, request); });
  result.records.push_back({receive, start_us, now_us()});
}

void Executor::wait_for(const Action& receive, const StepRequest& request) {
  const Cell cell{receive.stage, receive.microbatch};
  const Deadline deadline = Deadline::after(timeout_);
  if (receive.kind == ActionKind::kRecvForward) {
    arrived_[cell] = link_.wait_activation(take(expected_inputs_, cell, "posted receive"), request.training, deadline);
  } else {
    gradients_[cell] = link_.wait_gradients(take(expected_gradients_, cell, "posted receive"), deadline);
  }
}

void Executor::forward(const Action& action, const StepRequest& request, StepResult& result) {
  const at::AutoGradMode grad_mode(request.training);
  const Cell cell{action.stage, action.microbatch};
  const Microbatch& microbatch = request.microbatches[static_cast<size_t>(action.microbatch)];
  Stage& here = stage(action.stage);

  Activation activation;
  activation.inputs = here.is_first() ? microbatch.inputs : take(arrived_, cell, "input");
  model::ForwardContext context;
  context.compute = request.compute;
  activation.outputs = here.forward(activation.inputs, context);

  if (here.is_last()) {
    if (!request.loss) {
      result.outputs[action.microbatch] = activation.outputs;
      return;
    }
    const at::Tensor loss = request.loss(activation.outputs, microbatch.targets);
    result.loss_sum += loss.item<double>();
    if (!request.training) return;
    activation.outputs = {loss * request.loss_scale};
  } else if (is_here(action.stage + 1)) {  // the next stage is on this rank: hand over in memory
    model::Tensors handed;
    for (const at::Tensor& t : activation.outputs) handed.push_back(t.detach().requires_grad_(t.requires_grad()));
    arrived_[{action.stage + 1, action.microbatch}] = std::move(handed);
    if (!request.training) return;
  }
  live_[cell] = std::move(activation);
}

void Executor::backward(const Action& action, const StepRequest& request) {
  PENSTOCK_CHECK(request.training, "a backward action in a step without training");
  const Cell cell{action.stage, action.microbatch};
  const Stage& here = stage(action.stage);
  const Activation activation = take(live_, cell, "activation");

  if (--backwards_left_[action.stage] == 0 && request.before_last_backward) request.before_last_backward(action.stage);
  model::Tensors roots;
  for (const at::Tensor& t : activation.outputs) {
    if (t.requires_grad()) roots.push_back(t);
  }
  const model::Tensors gradients = here.is_last() ? model::Tensors{} : take(gradients_, cell, "output gradient");
  torch::autograd::backward(roots, gradients);
  if (here.is_first()) return;

  model::Tensors input_gradients;
  for (const at::Tensor& t : activation.inputs) {
    if (t.requires_grad()) input_gradients.push_back(gradient_or_zeros(t));
  }
  auto& target = is_here(action.stage - 1) ? gradients_[{action.stage - 1, action.microbatch}] : outgoing_[cell];
  target = std::move(input_gradients);
}

}  // namespace penstock::pipeline
