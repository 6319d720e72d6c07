#include "pipeline/executor.h"

#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/error.h"
#include "base/flight_recorder.h"
#include "comm/recorded_communicator.h"
#include "tensor/device.h"

namespace penstock::pipeline {
namespace {

using plan::Action;
using plan::ActionKind;

// Takes a value out; a missing one means that the schedule lied.
template <typename T>
T take(std::optional<T>& value, const Action& action, const char* what) {
  PENSTOCK_CHECK(value.has_value(), "{} has no {}", plan::to_string(action), what);
  T taken = std::move(*value);
  value.reset();
  return taken;
}

const char* word_for(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward: return "forward";
    case ActionKind::kBackward: return "backward";
    case ActionKind::kInputGrad: return "input gradient";
    case ActionKind::kWeightGrad: return "weight gradient";
    case ActionKind::kSendForward: return "send of activation";
    case ActionKind::kSendBackward: return "send of gradient";
    case ActionKind::kRecvForward: return "wait for activation";
    case ActionKind::kRecvBackward: return "wait for gradient";
  }
  return "";
}

FlightEntry entry_of(const Action& action) {
  return {.kind = FlightEntry::Kind::kAction, .name = word_for(action.kind), .stage = action.stage, .microbatch = action.microbatch};
}

// Runs `work`, and puts in front of its Error where it happened.
template <typename F>
void named(int rank, const Action& action, F work) {
  const auto where = [&] {
    return fmt::format("rank {}, stage {}, action {} of micro-batch {}", rank, action.stage, plan::to_string(action.kind), action.microbatch);
  };
  try {
    work();
  } catch (const Bug&) {
    throw;
  } catch (const Error& e) {
    throw error(e.code(), "{}: {}", where(), e.message());
  } catch (const std::exception& e) {  // a layer's own, LibTorch's shape errors among them
    throw error(Code::kInternal, "{}: {}", where(), e.what());
  }
}

}  // namespace

Executor::Executor(comm::Communicator& pipe, std::vector<Stage*> stages, seconds timeout)
    : pipe_(pipe), stages_(std::move(stages)), timeout_(timeout), num_stages_(stages_.at(0)->num_stages()), link_(pipe, stages_.at(0)->device()) {
  local_index_.assign(static_cast<size_t>(num_stages_), -1);
  for (size_t i = 0; i < stages_.size(); ++i) local_index_[static_cast<size_t>(stages_[i]->index())] = static_cast<int>(i);
}

bool Executor::is_here(int stage) const { return local_index_[static_cast<size_t>(stage)] >= 0; }

Stage& Executor::stage(int index) {
  PENSTOCK_CHECK(is_here(index), "stage {} is not on rank {}", index, pipe_.rank());
  return *stages_[static_cast<size_t>(local_index_[static_cast<size_t>(index)])];
}

Executor::Cell& Executor::cell(int stage, int microbatch) {
  PENSTOCK_CHECK(is_here(stage), "stage {} is not on rank {}", stage, pipe_.rank());
  const auto row = static_cast<size_t>(local_index_[static_cast<size_t>(stage)]);
  return cells_[row * static_cast<size_t>(request_->schedule->num_microbatches) + static_cast<size_t>(microbatch)];
}

StepResult Executor::run(const StepRequest& request) {
  begin(request);
  for (const Action& action : request.schedule->ranks[static_cast<size_t>(pipe_.rank())]) {
    if (plan::is_recv(action.kind)) {
      named(pipe_.rank(), action, [&] { post_receive(action); });
      continue;
    }
    wait_for_inputs(action);
    const int64_t start_us = now_us();
    named(pipe_.rank(), action, [&] {
      const FlightScope scope(comm::recorder_of(pipe_), entry_of(action));
      carry_out(action);
      if (plan::is_compute(action.kind) && pipe_.size() > 1) await_device();
    });
    result_.records.push_back({action, start_us, now_us()});
  }
  await_device();
  if (!result_.records.empty() && pipe_.size() == 1) result_.records.back().end_us = now_us();
  sum_losses();
  finish();
  return std::move(result_);
}

// For the times of the records. A GPU that several pipe ranks wait for is waited for by what is sent, anyway.
void Executor::await_device() const { tensor::synchronize(stages_.at(0)->device()); }

// Read at the end of the step, as reading waits for the device.
void Executor::sum_losses() {
  if (losses_.empty()) return;
  std::vector<at::Tensor> values;
  for (const Loss& loss : losses_) values.push_back(loss.value);
  const at::Tensor all = at::stack(values).to(at::kCPU);
  for (size_t i = 0; i < losses_.size(); ++i) {
    const double loss = all.data_ptr<double>()[i];
    if (!std::isfinite(loss) && result_.first_not_finite < 0) result_.first_not_finite = losses_[i].microbatch;
    result_.loss_sum += loss;
  }
}

void Executor::begin(const StepRequest& request) {
  const plan::Schedule& schedule = *request.schedule;
  PENSTOCK_CHECK(schedule.num_ranks == pipe_.size() && schedule.num_stages == num_stages_, "schedule {} is for {} ranks and {} stages, here are {} and {}",
                 schedule.name, schedule.num_ranks, schedule.num_stages, pipe_.size(), num_stages_);
  for (int s = 0; s < num_stages_; ++s) {
    PENSTOCK_CHECK(is_here(s) == (schedule.rank_of(s) == pipe_.rank()), "schedule {} places stage {} on rank {}", schedule.name, s, schedule.rank_of(s));
  }
  PENSTOCK_CHECK(request.microbatches.size() == static_cast<size_t>(schedule.num_microbatches), "{} micro-batches for a schedule of {}",
                 request.microbatches.size(), schedule.num_microbatches);
  request_ = &request;
  const size_t count = stages_.size() * static_cast<size_t>(schedule.num_microbatches);
  if (cells_.size() != count || !clean_) cells_ = std::vector<Cell>(count);  // not clean: an Error ended the step before
  clean_ = false;
  const auto& actions = schedule.ranks[static_cast<size_t>(pipe_.rank())];
  weights_left_.assign(static_cast<size_t>(num_stages_), 0);
  splits_.assign(static_cast<size_t>(num_stages_), false);
  for (const Action& a : actions) {
    weights_left_[static_cast<size_t>(a.stage)] += plan::makes_weight_grad(a.kind) ? 1 : 0;
    if (a.kind == ActionKind::kWeightGrad) splits_[static_cast<size_t>(a.stage)] = true;
  }
  losses_.clear();
  result_ = StepResult{};
  result_.records.reserve(actions.size());
}

void Executor::finish() {
  link_.flush(Deadline::after(timeout_));
  for (Cell& c : cells_) {
    PENSTOCK_CHECK(!c.expected_inputs && !c.expected_gradients && !c.inputs && !c.gradients && !c.input_gradients && c.activation.weight_grads.empty(),
                   "the schedule left values behind");
    drop(c);
  }
  clean_ = true;
  request_ = nullptr;
}

void Executor::carry_out(const Action& action) {
  switch (action.kind) {
    case ActionKind::kForward: return forward(action);
    case ActionKind::kBackward:
    case ActionKind::kInputGrad: return backward(action);
    case ActionKind::kWeightGrad: return weight_grad(action);
    case ActionKind::kSendForward:
    case ActionKind::kSendBackward: return send(action);
    case ActionKind::kRecvForward:
    case ActionKind::kRecvBackward: break;  // posted by run()
  }
}

void Executor::send(const Action& action) {
  Cell& c = cell(action.stage, action.microbatch);
  const int peer = plan::peer_stage(action);
  const int to = request_->schedule->rank_of(peer);
  if (action.kind == ActionKind::kSendBackward) {
    return link_.send_gradients(to, key(peer, action.microbatch), take(c.input_gradients, action, "input gradient"), Deadline::after(timeout_));
  }
  PENSTOCK_CHECK(c.live, "{} has no output", plan::to_string(action));
  link_.send_activation(to, key(peer, action.microbatch), c.activation.outputs);
  if (!request_->training) drop(c);
}

// A receive only makes room; the action that needs the message waits for it. Waiting here would hold up what stands in between.
void Executor::post_receive(const Action& action) {
  Cell& c = cell(action.stage, action.microbatch);
  const int from = request_->schedule->rank_of(plan::peer_stage(action));
  if (action.kind == ActionKind::kRecvForward) {
    c.expected_inputs = link_.expect_activation(from, key(action.stage, action.microbatch));
  } else {
    c.expected_gradients = link_.expect_gradients(from, key(action.stage, action.microbatch), c.activation.outputs);
  }
}

void Executor::wait_for_inputs(const Action& action) {
  if (!plan::is_compute(action.kind) || action.kind == ActionKind::kWeightGrad) return;
  Cell& c = cell(action.stage, action.microbatch);
  const bool forward = action.kind == ActionKind::kForward;
  if (!(forward ? c.expected_inputs : c.expected_gradients)) return;
  const Action receive{forward ? ActionKind::kRecvForward : ActionKind::kRecvBackward, action.stage, action.microbatch};
  const int64_t start_us = now_us();
  named(pipe_.rank(), receive, [&] {
    const FlightScope scope(comm::recorder_of(pipe_), entry_of(receive));
    wait_for(receive, c);
  });
  result_.records.push_back({receive, start_us, now_us()});
}

void Executor::wait_for(const Action& receive, Cell& c) {
  const Deadline deadline = Deadline::after(timeout_);
  if (receive.kind == ActionKind::kRecvForward) {
    c.inputs = link_.wait_activation(take(c.expected_inputs, receive, "posted receive"), request_->training, deadline);
  } else {
    c.gradients = link_.wait_gradients(take(c.expected_gradients, receive, "posted receive"), deadline);
    link_.release_activation(key(receive.stage + 1, receive.microbatch), deadline);
  }
}

model::ForwardContext Executor::context_for(int stage, Cell& c) const {
  model::ForwardContext context;
  context.linear.compute = request_->compute;
  if (request_->training && splits_[static_cast<size_t>(stage)]) context.linear.weight_grads = &c.activation.weight_grads;
  return context;
}

void Executor::forward(const Action& action) {
  Cell& c = cell(action.stage, action.microbatch);
  Stage& here = stage(action.stage);
  c.activation.inputs = here.is_first() ? request_->microbatches[static_cast<size_t>(action.microbatch)].inputs : take(c.inputs, action, "input");
  c.live = true;
  if (request_->training) {
    here.forward(c.activation, context_for(action.stage, c));
  } else {
    const at::NoGradGuard no_grad;
    c.activation.outputs = here.forward(std::move(c.activation.inputs), context_for(action.stage, c));
  }
  if (here.is_last()) {
    compute_loss(action, c);
  } else if (is_here(action.stage + 1)) {
    cell(action.stage + 1, action.microbatch).inputs = as_leaves(c.activation.outputs);
  } else {
    return;  // sent by an action of its own
  }
  if (!request_->training) drop(c);
}

void Executor::drop(Cell& c) {
  c.live = false;
  c.activation.clear();
  c.loss.reset();
  c.loss_inputs.clear();
}

void Executor::compute_loss(const Action& action, Cell& c) {
  const Microbatch& microbatch = request_->microbatches[static_cast<size_t>(action.microbatch)];
  if (request_->keep_outputs && microbatch.counts) {
    for (const at::Tensor& t : c.activation.outputs) result_.outputs[action.microbatch].push_back(t.detach());
  }
  if (!request_->loss) return;
  const at::AutoGradMode grad_mode(request_->training);
  c.loss_inputs = as_leaves(c.activation.outputs);
  c.loss = request_->loss(c.loss_inputs, microbatch.targets);
  if (!microbatch.counts) return;
  losses_.push_back({action.microbatch, c.loss.detach().to(at::kDouble).reshape({})});
}

void Executor::announce_last(int stage, const std::vector<at::Tensor>* pending) {
  if (--weights_left_[static_cast<size_t>(stage)] == 0 && request_->before_last_backward) request_->before_last_backward(stage, pending);
}

// Both gradients, or the input gradient alone: then the queue keeps what the weight gradients need.
void Executor::backward(const Action& action) {
  PENSTOCK_CHECK(request_->training, "{} in a step without training", plan::to_string(action));
  Cell& c = cell(action.stage, action.microbatch);
  Stage& here = stage(action.stage);
  PENSTOCK_CHECK(c.live, "{} has no activation", plan::to_string(action));
  // Where weight gradients are queued, or layers computed again one segment after the other, hooks cannot tell when a parameter is complete.
  const bool hooks_tell = !splits_[static_cast<size_t>(action.stage)] && !here.recomputes();
  if (hooks_tell) announce_last(action.stage, nullptr);
  if (here.is_last()) {
    const bool counts = request_->microbatches[static_cast<size_t>(action.microbatch)].counts;
    torch::autograd::backward({c.loss}, {at::full_like(c.loss, counts ? request_->loss_scale : 0)});
    c.gradients = gradients_of(c.loss_inputs);
  }
  here.backward(c.activation, take(c.gradients, action, "output gradient"), context_for(action.stage, c));
  hand_input_gradients_on(action, c);
  drop(c);
  if (!hooks_tell && action.kind == ActionKind::kBackward) weight_grad(action);
}

void Executor::hand_input_gradients_on(const Action& action, Cell& c) {
  if (action.stage == 0) return;
  auto& target = is_here(action.stage - 1) ? cell(action.stage - 1, action.microbatch).gradients : c.input_gradients;
  target = gradients_of(c.activation.inputs);
}

void Executor::weight_grad(const Action& action) {
  PENSTOCK_CHECK(request_->training, "{} in a step without training", plan::to_string(action));
  kernels::WeightGradQueue& queue = cell(action.stage, action.microbatch).activation.weight_grads;
  const bool last = weights_left_[static_cast<size_t>(action.stage)] == 1;
  const std::vector<at::Tensor> pending = last ? queue.weights() : std::vector<at::Tensor>{};
  announce_last(action.stage, &pending);
  queue.run(request_->weight_grad_complete);
  if (splits_[static_cast<size_t>(action.stage)] && request_->after_weight_grads) request_->after_weight_grads(action.stage);
}

}  // namespace penstock::pipeline
