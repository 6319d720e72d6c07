#include "train/pipeline_trainer.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "pipeline/microbatch.h"
#include "plan/schedule_check.h"
#include "plan/schedule_csv.h"

namespace penstock::train {
namespace {

constexpr size_t kMaxScheduleFile = size_t{64} << 20;

plan::Schedule training_schedule(const TrainerOptions& options) {
  if (!options.schedule.ends_with(".csv")) {
    return plan::proven(plan::make_schedule({options.schedule, options.mesh.pipe, options.microbatches, options.chunks}).value());
  }
  plan::Schedule schedule = plan::proven(plan::parse_csv(read_file(options.schedule, kMaxScheduleFile).value(), options.schedule).value());
  if (schedule.num_ranks != options.mesh.pipe || schedule.num_microbatches != options.microbatches) {
    throw error(Code::kInvalidArgument, "{}: expected {} ranks and {} micro-batches as configured, found {} and {}", options.schedule, options.mesh.pipe,
                options.microbatches, schedule.num_ranks, schedule.num_microbatches);
  }
  return schedule;
}

// Forward only, on the same stages.
plan::Schedule evaluation_schedule(const plan::Schedule& training) {
  plan::Schedule compute = training;
  for (auto& list : compute.ranks) std::erase_if(list, [](const plan::Action& a) { return !plan::is_compute(a.kind); });
  return plan::proven(plan::forward_part(compute));
}

plan::Boundaries cut(const std::vector<model::LayerSpec>& layers, const TrainerOptions& options, int num_stages) {
  std::vector<plan::LayerCost> costs;
  for (const auto& layer : layers) costs.push_back({layer.type, static_cast<double>(layer.num_parameters), 0});
  return plan::partition(costs, {options.partition, num_stages, false, 0}).value();
}

plan::BucketLimits bucket_limits(double mib) {
  const auto bytes = static_cast<int64_t>(mib * (1 << 20));
  return {bytes, std::max<int64_t>(plan::kBucketAlignment, bytes / 4)};
}

bool all_finite(const at::Tensor& t) { return at::isfinite(t).all().item<bool>(); }

}  // namespace

PipelineTrainer::PipelineTrainer(comm::Communicator& world, std::vector<model::LayerSpec> layers, const TrainerOptions& options)
    : world_(world),
      options_(options),
      train_schedule_(training_schedule(options)),
      eval_schedule_(evaluation_schedule(train_schedule_)),
      boundaries_(cut(layers, options, train_schedule_.num_stages)) {
  groups_ = make_groups(world, options.mesh, find_tied(layers, boundaries_, train_schedule_.stage_ranks), deadline());
  build_stages(layers);
  build_reducer();
  optimizer_.emplace(parameters_, options.optimizer, options.shard_optimizer ? groups_.data.get() : nullptr);
  std::vector<pipeline::Stage*> mine;
  for (const auto& stage : stages_) mine.push_back(stage.get());
  executor_.emplace(*groups_.pipe, mine, options.timeout);
}

void PipelineTrainer::build_stages(const std::vector<model::LayerSpec>& layers) {
  model::SharedWeights shared;
  for (const int index : train_schedule_.stages_of(pipe_rank())) {
    stages_.push_back(std::make_unique<pipeline::Stage>(layers, boundaries_, index, options_.checkpoint_layers, &shared));
    for (const model::Parameter& p : stages_.back()->parameters()) {
      const bool known = std::ranges::any_of(parameters_, [&](const auto& q) { return q.value.is_same(p.value); });
      if (!known) parameters_.push_back(p);
    }
  }
  for (model::Parameter& p : parameters_) model::initialize(p, options_.seed);
}

// Stages in the order in which the schedule completes their gradients. A parameter of several stages is complete with the last of them.
void PipelineTrainer::build_reducer() {
  std::vector<int> order;
  const auto& actions = train_schedule_.ranks[static_cast<size_t>(pipe_rank())];
  for (const plan::Action& a : actions) {
    if (!plan::makes_weight_grad(a.kind)) continue;
    std::erase(order, a.stage);
    order.push_back(a.stage);
  }
  std::vector<std::vector<at::Tensor>> parameters(order.size());
  reducer_stage_.assign(static_cast<size_t>(train_schedule_.num_stages), 0);
  std::vector<at::Tensor> taken;
  for (size_t position = order.size(); position-- > 0;) {
    reducer_stage_[static_cast<size_t>(order[position])] = position;
    const auto stage = std::ranges::find(stages_, order[position], [](const auto& s) { return s->index(); });
    for (const model::Parameter& p : (*stage)->parameters()) {
      if (std::ranges::any_of(taken, [&](const at::Tensor& t) { return t.is_same(p.value); })) continue;
      parameters[position].push_back(p.value);
      taken.push_back(p.value);
    }
  }
  reducer_.emplace(parameters, groups_.data.get(), bucket_limits(options_.bucket_mib));
}

bool PipelineTrainer::owns(const std::string& parameter) const {
  const auto tied = std::ranges::find(groups_.tied, parameter, &TiedParameter::name);
  return tied == groups_.tied.end() || tied->pipe_ranks.front() == pipe_rank();
}

PipelineTrainer::Gradients PipelineTrainer::compute_gradients(std::span<const pipeline::Microbatch> microbatches, const pipeline::LossFunction& loss,
                                                              double loss_scale) {
  pipeline::StepRequest request;
  request.schedule = &train_schedule_;
  request.microbatches = microbatches;
  request.loss = loss;
  request.loss_scale = loss_scale;
  request.compute = options_.compute;
  request.before_last_backward = [this](int stage, const std::vector<at::Tensor>* pending) {
    reducer_->arm(reducer_stage_[static_cast<size_t>(stage)], pending);
  };
  request.weight_grad_complete = [this](const at::Tensor& parameter) { reducer_->complete(parameter); };

  reducer_->begin_step();
  Gradients gradients;
  gradients.step = executor_->run(request);
  gradients.reductions = reducer_->finish(deadline());
  for (const TiedParameter& tied : groups_.tied) {
    const auto parameter = std::ranges::find(parameters_, tied.name, &model::Parameter::name);
    at::Tensor gradient = parameter->value.grad();
    tied.group->all_reduce(gradient, comm::Reduce::kSum)->wait(deadline());
  }
  return gradients;
}

double PipelineTrainer::gradient_square() const {
  std::vector<std::string> counted_elsewhere;
  for (const model::Parameter& p : parameters_) {
    if (!owns(p.name)) counted_elsewhere.push_back(p.name);
  }
  return optimizer_->gradient_square_sum(counted_elsewhere) / (mesh().data * mesh().tensor);
}

void PipelineTrainer::update(int64_t step, double learning_rate, double gradient_norm) {
  optimizer_->step(step, learning_rate, clip_factor(gradient_norm, options_.optimizer.clip_norm), deadline());
}

pipeline::StepResult PipelineTrainer::evaluate(std::span<const pipeline::Microbatch> microbatches, const pipeline::LossFunction& loss, bool keep_outputs) {
  pipeline::StepRequest request;
  request.schedule = &eval_schedule_;
  request.microbatches = microbatches;
  request.loss = loss;
  request.training = false;
  request.keep_outputs = keep_outputs;
  request.compute = options_.compute;
  return executor_->run(request);
}

double PipelineTrainer::sum_over(comm::Communicator* group, double value) const {
  if (group == nullptr) return value;
  at::Tensor sum = at::full({1}, value, at::kDouble);
  group->all_reduce(sum, comm::Reduce::kSum)->wait(deadline());
  return sum.item<double>();
}

StepOutcome PipelineTrainer::train_batch(const model::Tensors& inputs, const model::Tensors& targets, const pipeline::LossFunction& loss,
                                         double learning_rate) {
  const auto microbatches = pipeline::split_batch(inputs, targets, options_.microbatches, has_first_stage(), has_last_stage());
  const double mine = has_last_stage() ? static_cast<double>(targets.at(0).numel()) : 0;
  const double items = sum_over(groups_.data.get(), mine);
  const Gradients gradients = compute_gradients(microbatches, loss, items > 0 ? 1 / items : 0);

  at::Tensor sums = at::empty({3}, at::kDouble);
  double* values = sums.data_ptr<double>();
  values[0] = gradients.step.loss_sum / mesh().tensor;
  values[1] = gradient_square();
  values[2] = mine / mesh().tensor;
  world_.all_reduce(sums, comm::Reduce::kSum)->wait(deadline());
  const StepOutcome outcome{values[0] / values[2], std::sqrt(values[1])};
  if (!std::isfinite(outcome.loss) || !std::isfinite(outcome.gradient_norm)) explain_not_finite(steps_ + 1, gradients.step);
  update(++steps_, learning_rate, outcome.gradient_norm);
  return outcome;
}

model::Tensors PipelineTrainer::eval_batch(const model::Tensors& inputs) {
  const auto microbatches = pipeline::split_batch(inputs, {}, options_.microbatches, has_first_stage(), false);
  const pipeline::StepResult result = evaluate(microbatches, nullptr, true);
  std::vector<model::Tensors> parts;
  for (const auto& [microbatch, outputs] : result.outputs) parts.push_back(outputs);
  return pipeline::merge_outputs(parts);
}

void PipelineTrainer::explain_not_finite(int64_t step, const pipeline::StepResult& result) {
  // The largest code wins, so codes fall with what shall be named first.
  constexpr int64_t kLoss = int64_t{1} << 62;
  int64_t code = 0;
  if (result.first_not_finite >= 0) code = kLoss - (int64_t{replica()} * options_.microbatches + result.first_not_finite);
  int64_t index = 0;
  for (const model::Parameter& p : parameters_) {
    ++index;
    if (code == 0 && !all_finite(p.value.grad())) code = (int64_t{1} << 40) - (int64_t{world_.rank()} << 20) - index;
  }
  at::Tensor largest = at::full({1}, code, at::kLong);
  world_.all_reduce(largest, comm::Reduce::kMax)->wait(deadline());
  const int64_t found = largest.item<int64_t>();
  const char* hint = "lower the learning rate or set a clip norm";
  if (found > kLoss / 2) {
    const int64_t which = kLoss - found;
    throw error(Code::kInternal, "step {}: the loss of replica {}, micro-batch {} is not finite; {}", step, which / options_.microbatches,
                which % options_.microbatches, hint);
  }
  const int64_t place = (int64_t{1} << 40) - found;
  throw error(Code::kInternal, "step {}: a gradient on rank {} (its parameter {}) is not finite while every loss is; {}", step, place >> 20,
              place & ((1 << 20) - 1), hint);
}

}  // namespace penstock::train
