#include "train/pipeline_trainer.h"

#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/log.h"
#include "pipeline/microbatch.h"
#include "plan/choose_schedule.h"
#include "plan/schedule_check.h"
#include "plan/schedule_csv.h"
#include "plan/simulation.h"

namespace penstock::train {
namespace {

constexpr double kBytesPerWeight = 16;    // float32: weight, gradient, two moments
constexpr auto kProfileTime = std::chrono::minutes(10);
constexpr int kHopTag = 13, kHops = 20;

bool wants_profile(const TrainerOptions& options) { return options.partition == plan::kProfiled || options.schedule == plan::kAutoSchedule; }

// Rank 0 measures while the others wait: they might share its cores.
std::vector<pipeline::LayerProfile> profile_once(comm::Communicator& world, const std::vector<model::LayerSpec>& layers, const TrainerOptions& options) {
  if (!wants_profile(options)) return {};
  if (!options.sample) throw error(Code::kInvalidArgument, "partition profiled and schedule auto measure the layers: expected a sample micro-batch, found none");
  std::vector<pipeline::LayerProfile> profiles(layers.size());
  if (world.rank() == 0) profiles = pipeline::profile_layers(layers, *options.sample);
  constexpr int64_t kFields = 5;
  at::Tensor packed = at::zeros({static_cast<int64_t>(layers.size()) * kFields}, at::kDouble);
  double* value = packed.data_ptr<double>();
  for (const auto& p : profiles) {
    for (const double field : {p.forward_us, p.backward_us, static_cast<double>(p.activation_bytes), static_cast<double>(p.output_bytes),
                               static_cast<double>(p.parameter_bytes)}) {
      *value++ = field;
    }
  }
  world.broadcast(packed, 0)->wait(Deadline::after(kProfileTime));
  value = packed.data_ptr<double>();
  for (auto& p : profiles) {
    p = {value[0], value[1], static_cast<int64_t>(value[2]), static_cast<int64_t>(value[3]), static_cast<int64_t>(value[4])};
    value += kFields;
  }
  return profiles;
}

plan::Schedule checked_for_training(plan::Schedule schedule) {
  const bool trains = std::ranges::any_of(schedule.ranks.front(), [](const plan::Action& a) { return plan::makes_weight_grad(a.kind); });
  if (trains) return schedule;
  throw error(Code::kInvalidArgument, "schedule: {} has no backward actions; expected a schedule to train with", schedule.name);
}

plan::Schedule training_schedule(const TrainerOptions& options) {
  if (!options.schedule.ends_with(".csv")) {
    const std::string name = options.schedule == plan::kAutoSchedule ? "1f1b" : options.schedule;
    return checked_for_training(plan::proven(plan::make_schedule({name, options.mesh.pipe, options.microbatches, options.chunks}).value()));
  }
  plan::Schedule schedule = plan::proven(plan::parse_csv(read_file(options.schedule, plan::kMaxCsvBytes).value(), options.schedule).value());
  if (schedule.num_ranks != options.mesh.pipe || schedule.num_microbatches != options.microbatches) {
    throw error(Code::kInvalidArgument, "{}: expected {} ranks and {} micro-batches as configured, found {} and {}", options.schedule, options.mesh.pipe,
                options.microbatches, schedule.num_ranks, schedule.num_microbatches);
  }
  return checked_for_training(std::move(schedule));
}

// Forward only, on the same stages.
plan::Schedule evaluation_schedule(const plan::Schedule& training) {
  plan::Schedule compute = training;
  for (auto& list : compute.ranks) std::erase_if(list, [](const plan::Action& a) { return !plan::is_compute(a.kind); });
  return plan::proven(plan::forward_part(compute));
}

// The most micro-batches whose activations one stage holds.
int most_live(const plan::Schedule& schedule) {
  const plan::Simulation simulation = plan::simulate(schedule, std::vector<plan::StageCosts>(static_cast<size_t>(schedule.num_stages)), 0);
  int most = 0;
  for (const plan::RankTimeline& rank : simulation.ranks) most = std::max(most, rank.peak_kept_for_weights);
  return (most * schedule.num_ranks + schedule.num_stages - 1) / schedule.num_stages;
}

plan::Boundaries cut(const std::vector<model::LayerSpec>& layers, const TrainerOptions& options, const plan::Schedule& schedule,
                     const std::vector<pipeline::LayerProfile>& profile) {
  const bool measured = options.partition == plan::kProfiled;
  const bool may_be_eager = options.schedule == plan::kAutoSchedule;
  const int live = !measured ? 0 : most_live(may_be_eager ? plan::make_schedule({"eager-1f1b", schedule.num_ranks, schedule.num_microbatches, 0}).value() : schedule);
  std::vector<plan::LayerCost> costs;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto parameters = static_cast<double>(layers[i].num_parameters);
    plan::LayerCost cost{layers[i].type, parameters, parameters * kBytesPerWeight};
    if (measured) {
      cost.weight = profile[i].forward_us + profile[i].backward_us;
      cost.memory_bytes += static_cast<double>(profile[i].activation_bytes) * live;
    }
    costs.push_back(std::move(cost));
  }
  const double limit = options.memory_limit * schedule.num_ranks / schedule.num_stages;  // a rank's share for each of its stages
  return plan::partition(costs, {measured ? "minmax" : options.partition, schedule.num_stages, false, limit}).value();
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
      profile_(profile_once(world, layers, options)),
      train_schedule_(training_schedule(options)),
      eval_schedule_(evaluation_schedule(train_schedule_)),
      boundaries_(cut(layers, options, train_schedule_, profile_)) {
  groups_ = make_groups(world, options.mesh, find_tied(layers, boundaries_, train_schedule_.stage_ranks), deadline());
  if (options.schedule == plan::kAutoSchedule) choose_schedule();
  build_stages(layers);
  build_reducer();
  optimizer_.emplace(parameters_, options.optimizer, options.shard_optimizer ? groups_.data.get() : nullptr);
  std::vector<pipeline::Stage*> mine;
  for (const auto& stage : stages_) mine.push_back(stage.get());
  executor_.emplace(*groups_.pipe, mine, options.timeout);
}

// Between 1F1B and its eager form, which place stages alike. The first two pipe ranks of each replica measure a hop; rank 0's figure counts.
void PipelineTrainer::choose_schedule() {
  if (mesh().pipe == 1) return;
  int64_t bytes = 0;
  std::vector<plan::StageCosts> costs;
  for (size_t stage = 0; stage + 1 < boundaries_.size(); ++stage) {
    plan::StageCosts cost{0, 0, 0, 0};
    for (int layer = boundaries_[stage]; layer < boundaries_[stage + 1]; ++layer) {
      cost.forward += profile_[static_cast<size_t>(layer)].forward_us;
      cost.backward += profile_[static_cast<size_t>(layer)].backward_us;
      if (layer + 1 == boundaries_[stage + 1]) bytes = std::max(bytes, profile_[static_cast<size_t>(layer)].output_bytes);
    }
    costs.push_back(cost);
  }
  at::Tensor hop_us = at::zeros({1}, at::kDouble);
  if (pipe_rank() < 2) {
    at::Tensor message = at::zeros({std::max<int64_t>(bytes, 1)}, at::kByte);
    double shortest = 1e12;
    for (int i = 0; i < kHops; ++i) {
      const int64_t start = now_us();
      if (pipe_rank() == 0) groups_.pipe->send(message, 1, kHopTag)->wait(deadline());
      groups_.pipe->recv(message, 1 - pipe_rank(), kHopTag)->wait(deadline());
      if (pipe_rank() == 1) groups_.pipe->send(message, 0, kHopTag)->wait(deadline());
      shortest = std::min(shortest, static_cast<double>(now_us() - start) / 2);
    }
    hop_us.fill_(shortest);
  }
  world_.broadcast(hop_us, 0)->wait(deadline());
  const double hop = hop_us.item<double>();
  const std::string chosen = plan::choose_1f1b(options_.microbatches, costs, hop);
  if (world_.rank() == 0) spdlog::info("schedule auto: {} (a hop takes {:.0f} us, the first stage's forward {:.0f} us)", chosen, hop, costs[0].forward);
  train_schedule_ = plan::proven(plan::make_schedule({chosen, mesh().pipe, options_.microbatches, 0}).value());
  eval_schedule_ = evaluation_schedule(train_schedule_);
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
  check_tied(layers, shared);
  for (model::Parameter& p : parameters_) {
    options_.initialize ? options_.initialize(p) : model::initialize(p, options_.seed);
  }
}

// What specs say of shared weights against what layers did.
void PipelineTrainer::check_tied(const std::vector<model::LayerSpec>& layers, const model::SharedWeights& shared) const {
  for (const TiedParameter& tied : groups_.tied) {
    if (std::ranges::find(parameters_, tied.name, &model::Parameter::name) != parameters_.end()) continue;
    throw error(Code::kInvalidArgument, "layers: '{}' is listed in LayerSpec::tied, but no layer here has a parameter of that name", tied.name);
  }
  for (const std::string& name : shared.names()) {
    const bool listed = std::ranges::any_of(layers, [&](const auto& layer) { return std::ranges::find(layer.tied, name) != layer.tied.end(); });
    if (!listed) throw error(Code::kInvalidArgument, "layers: '{}' comes from SharedWeights, but no LayerSpec lists it in `tied`", name);
  }
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
  reducer_.emplace(parameters, groups_.data.get(), bucket_limits(options_.bucket_mib), deadline());
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

namespace {

// Targets of a padded batch are negative and count nothing.
double count_items(const model::Tensors& targets) {
  const at::Tensor& first = targets.at(0);
  const bool ids = at::isIntegralType(first.scalar_type(), /*includeBool=*/false);
  return ids ? static_cast<double>(first.ge(0).sum().item<int64_t>()) : static_cast<double>(first.numel());
}

}  // namespace

// Ranks see different parts of the batch; all must find theirs well, or all refuse it.
PipelineTrainer::Batch PipelineTrainer::agree_on_batch(const model::Tensors& inputs, const model::Tensors& targets, bool with_targets, const ItemCount& items) {
  Batch batch;
  std::optional<Error> wrong;
  double rows = 0, target_rows = 0;
  try {
    if (has_last_stage() && with_targets && targets.empty()) throw error(Code::kInvalidArgument, "micro-batches: expected targets on the rank of the last stage, found none");
    if (has_first_stage() && inputs.empty()) throw error(Code::kInvalidArgument, "micro-batches: expected inputs on the rank of the first stage, found none");
    batch.microbatches = pipeline::split_batch(inputs, targets, options_.microbatches, has_first_stage(), has_last_stage() && with_targets);
    if (has_first_stage()) rows = static_cast<double>(inputs[0].size(0));
    if (has_last_stage() && with_targets) {
      target_rows = static_cast<double>(targets[0].size(0));
      batch.items = items ? items(targets) : count_items(targets);
    }
  } catch (const Error& e) {
    wrong = e;
  }
  at::Tensor sums = at::empty({4}, at::kDouble);
  double* value = sums.data_ptr<double>();
  value[0] = batch.items / mesh().tensor;
  value[1] = rows;
  value[2] = with_targets ? target_rows : rows;
  value[3] = wrong ? 1 : 0;
  world_.all_reduce(sums, comm::Reduce::kSum)->wait(deadline());
  if (wrong) throw *wrong;
  if (value[3] > 0) throw error(Code::kInvalidArgument, "micro-batches: {:.0f} of {} ranks refused their part of the batch and say why", value[3], world_.size());
  if (value[1] != value[2]) {
    throw error(Code::kInvalidArgument, "micro-batches: {:.0f} rows of inputs, {:.0f} of targets over all replicas; expected as many", value[1] / mesh().tensor,
                value[2] / mesh().tensor);
  }
  batch.items = value[0];
  return batch;
}

StepOutcome PipelineTrainer::train_batch(const model::Tensors& inputs, const model::Tensors& targets, const pipeline::LossFunction& loss,
                                         double learning_rate, const ItemCount& items) {
  const Batch batch = agree_on_batch(inputs, targets, true, items);
  const Gradients gradients = compute_gradients(batch.microbatches, loss, batch.items > 0 ? 1 / batch.items : 0);
  at::Tensor sums = at::empty({2}, at::kDouble);
  double* values = sums.data_ptr<double>();
  values[0] = gradients.step.loss_sum / mesh().tensor;
  values[1] = gradient_square();
  world_.all_reduce(sums, comm::Reduce::kSum)->wait(deadline());
  const StepOutcome outcome{batch.items > 0 ? values[0] / batch.items : 0, std::sqrt(values[1])};
  if (!std::isfinite(outcome.loss) || !std::isfinite(outcome.gradient_norm)) explain_not_finite(steps_ + 1, gradients.step);
  update(++steps_, learning_rate, outcome.gradient_norm);
  return outcome;
}

model::Tensors PipelineTrainer::eval_batch(const model::Tensors& inputs) {
  const Batch batch = agree_on_batch(inputs, {}, false, {});
  const pipeline::StepResult result = evaluate(batch.microbatches, nullptr, true);
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
