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

constexpr auto kProfileTime = std::chrono::minutes(10);
constexpr int kHopTag = 13, kHops = 20;

bool wants_profile(const TrainerOptions& options) { return options.partition == plan::kProfiled || options.schedule == plan::kAutoSchedule; }

// float32: weight, gradient, two moments; each whole or a replica's part.
double bytes_per_weight(const TrainerOptions& options) {
  const double parts = static_cast<int>(options.sharding) * 4.0 + (options.sharding == config::Sharding::kNone ? 0 : 4.0);
  return 16 - parts + parts / options.mesh.data;
}

void check_tensor_axis(const TrainerOptions& options) {
  if (options.mesh.tensor == 1) return;
  const bool by_norm = options.optimizer.name == config::OptimizerName::kLamb || options.optimizer.name == config::OptimizerName::kLars;
  const char* reason = by_norm                ? "optimizer lamb and lars need the norm of every parameter, which is not summed over the ranks that share it: use adamw or sgd"
                       : wants_profile(options) ? "partition profiled and schedule auto measure layers on one rank: use another partition and schedule"
                                                : nullptr;
  if (reason != nullptr) throw error(Code::kUnimplemented, "mesh.tensor {}: {}", options.mesh.tensor, reason);
}

// Rank 0 measures while the others wait: they might share its cores.
std::vector<pipeline::LayerProfile> profile_once(comm::Communicator& world, const std::vector<model::LayerSpec>& layers, const TrainerOptions& options) {
  check_tensor_axis(options);
  if (!wants_profile(options)) return {};
  if (!options.sample) throw error(Code::kInvalidArgument, "partition profiled and schedule auto measure the layers: expected a sample micro-batch, found none");
  std::vector<pipeline::LayerProfile> profiles(layers.size());
  if (world.rank() == 0) {
    pipeline::ProfileRequest request = *options.sample;
    request.device = options.device;
    profiles = pipeline::profile_layers(layers, request);
  }
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
    plan::LayerCost cost{layers[i].type, parameters, parameters * bytes_per_weight(options) / options.mesh.tensor};
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
      boundaries_(cut(layers, options, train_schedule_, profile_)),
      scaler_(options.compute == kernels::Compute::kFp16, options.fp16) {
  groups_ = make_groups(world, options.mesh, find_tied(layers, boundaries_, train_schedule_.stage_ranks), deadline());
  if (options.schedule == plan::kAutoSchedule) choose_schedule();
  build_stages(layers);
  if (groups_.data && options.sharding >= config::Sharding::kGradients) {
    build_layer_shards();
  } else {
    build_reducer(groups_.data && options.sharding == config::Sharding::kOptimizer);
  }
  shards_->initialize([&](model::Parameter& p) { set_initial_value(p); });
  optimizer_.emplace(parameters_, options.optimizer, *shards_);
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
    at::Tensor message = at::zeros({std::max<int64_t>(bytes, 1)}, at::TensorOptions(at::kByte).device(options_.device));
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
    stages_.push_back(std::make_unique<pipeline::Stage>(layers, boundaries_, index, options_.checkpoint_layers, &shared, options_.device));
    for (const model::Parameter& p : stages_.back()->parameters()) {
      const bool known = std::ranges::any_of(parameters_, [&](const auto& q) { return q.value.is_same(p.value); });
      if (!known) parameters_.push_back(p);
    }
  }
  check_tied(layers, shared);
}

// Drawn or loaded on the CPU: the same values on every device.
void PipelineTrainer::set_initial_value(model::Parameter& parameter) const {
  const auto set = [&](model::Parameter& p) { options_.initialize ? options_.initialize(p) : model::initialize(p, options_.seed); };
  if (parameter.value.is_cpu()) return set(parameter);
  model::Parameter host = parameter;
  host.value = at::empty(parameter.value.sizes(), at::kFloat);
  set(host);
  const at::NoGradGuard no_grad;
  parameter.value.copy_(host.value);
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
void PipelineTrainer::build_reducer(bool shards_optimizer) {
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
  std::vector<at::Tensor> alone;
  for (const size_t i : tied_parameters()) {
    if (shards_optimizer) alone.push_back(parameters_[i].value);
  }
  const auto sums = shards_optimizer ? DataParallelReducer::Sums::kOwnPart : DataParallelReducer::Sums::kAll;
  reducer_.emplace(parameters, groups_.data.get(), bucket_limits(options_.bucket_mib), deadline(), sums, alone);
  if (groups_.data && options_.reduce_dtype == config::ReduceDtype::kBfloat16) reducer_->round_to_bf16();
  if (!shards_optimizer) {
    shards_ = std::make_unique<WholeParameters>(parameters_);
    return;
  }
  auto shards = std::make_unique<BucketShards>(parameters_, *groups_.data, *reducer_);
  bucket_shards_ = shards.get();
  shards_ = std::move(shards);
}

// Positions of those that other pipe ranks have too: they are cut alike there.
std::vector<size_t> PipelineTrainer::tied_parameters() const {
  std::vector<size_t> tied;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (std::ranges::find(groups_.tied, parameters_[i].name, &TiedParameter::name) != groups_.tied.end()) tied.push_back(i);
  }
  return tied;
}

void PipelineTrainer::build_layer_shards() {
  std::vector<LayerShards::Layer> layers;
  for (const auto& stage : stages_) {
    for (int i = 0; i < stage->num_layers(); ++i) layers.push_back({stage->first_layer() + i, stage->values_of(stage->first_layer() + i)});
  }
  auto shards = std::make_unique<LayerShards>(parameters_, layers, *groups_.data, options_.sharding == config::Sharding::kParameters, tied_parameters());
  layer_shards_ = shards.get();
  shards_ = std::move(shards);
  train_uses_ = plan::layer_uses(train_schedule_, pipe_rank(), boundaries_, options_.checkpoint_layers);
  eval_uses_ = plan::layer_uses(eval_schedule_, pipe_rank(), boundaries_, options_.checkpoint_layers);
  for (const auto& stage : stages_) {
    stage->set_visits({[this](int first, int last) { layer_shards_->before(first, last); }, [this](int first, int last) { layer_shards_->after(first, last); }});
  }
}

std::vector<int> PipelineTrainer::holders(const std::string& parameter) const {
  const auto tied = std::ranges::find(groups_.tied, parameter, &TiedParameter::name);
  return tied == groups_.tied.end() ? std::vector<int>{pipe_rank()} : tied->pipe_ranks;
}

bool PipelineTrainer::owns(const std::string& parameter) const { return holders(parameter).front() == pipe_rank(); }

PipelineTrainer::Gradients PipelineTrainer::compute_gradients(std::span<const pipeline::Microbatch> microbatches, const pipeline::LossFunction& loss,
                                                              double loss_scale) {
  Gradients gradients = reduced_gradients(microbatches, loss, loss_scale * scaler_.scale());
  if (options_.unused_parameters == config::UnusedParameters::kError) refuse_unused_parameters(!microbatches.empty());
  for (const TiedParameter& tied : groups_.tied) {
    const auto parameter = std::ranges::find(parameters_, tied.name, &model::Parameter::name);
    at::Tensor gradient = shards_->summed_gradient(static_cast<size_t>(parameter - parameters_.begin()));
    tied.group->all_reduce(gradient, comm::Reduce::kSum)->wait(deadline());
  }
  return gradients;
}

PipelineTrainer::Gradients PipelineTrainer::reduced_gradients(std::span<const pipeline::Microbatch> microbatches, const pipeline::LossFunction& loss,
                                                              double loss_scale) {
  const std::vector<pipeline::Microbatch> here = pipeline::on_device(microbatches, options_.device);
  pipeline::StepRequest request;
  request.schedule = &train_schedule_;
  request.microbatches = here;
  request.loss = loss;
  request.loss_scale = loss_scale;
  request.compute = options_.compute;
  Gradients gradients;
  if (layer_shards_ != nullptr) {
    request.after_weight_grads = [this](int stage) { layer_shards_->after(boundaries_[static_cast<size_t>(stage)], boundaries_[static_cast<size_t>(stage) + 1]); };
    layer_shards_->begin(train_uses_, options_.timeout);
    if (!microbatches.empty()) gradients.step = executor_->run(request);
    layer_shards_->pass();
    gradients.reductions = layer_shards_->finish();
    return gradients;
  }
  request.before_last_backward = [this](int stage, const std::vector<at::Tensor>* pending) {
    reducer_->arm(reducer_stage_[static_cast<size_t>(stage)], pending);
  };
  request.weight_grad_complete = [this](const at::Tensor& parameter) { reducer_->complete(parameter); };

  if (reducer_->changes_places()) change_places([this] { reducer_->begin_step(); });
  else reducer_->begin_step();
  if (!microbatches.empty()) {
    gradients.step = executor_->run(request);
  } else {
    const std::vector<at::Tensor> nothing_to_wait_for;
    for (size_t position = 0; position < stages_.size(); ++position) reducer_->arm(position, &nothing_to_wait_for);
  }
  gradients.reductions = reducer_->finish(deadline());
  return gradients;
}

void PipelineTrainer::change_places(const std::function<void()>& change) {
  if (bucket_shards_ == nullptr) return change();
  const auto change_all = [&] {
    change();
    bucket_shards_->follow();
  };
  optimizer_->cut_anew(change_all, deadline());
}

void PipelineTrainer::refuse_unused_parameters(bool has_microbatches) {
  // The largest code wins: the lowest rank, and its first parameter.
  int64_t code = 0;
  for (size_t i = parameters_.size(); has_microbatches && i-- > 0;) {
    const bool has_gradient = layer_shards_ != nullptr ? layer_shards_->has_gradient(i) : reducer_->has_gradient(parameters_[i].value);
    if (!has_gradient) code = (int64_t{1} << 62) - (int64_t{world_.rank()} << 32) - static_cast<int64_t>(i);
  }
  at::Tensor largest = at::full({1}, code, at::kLong);
  world_.all_reduce(largest, comm::Reduce::kMax)->wait(deadline());
  if (largest.item<int64_t>() == 0) return;
  const int64_t place = (int64_t{1} << 62) - largest.item<int64_t>();
  const int rank = static_cast<int>(place >> 32);
  constexpr int64_t kLongestName = 256;
  at::Tensor name = at::zeros({kLongestName}, at::kByte);
  if (rank == world_.rank()) {
    const std::string& own = parameters_[static_cast<size_t>(place & 0xffffffff)].name;
    std::ranges::copy(own.substr(0, kLongestName - 1), reinterpret_cast<char*>(name.data_ptr<uint8_t>()));
  }
  world_.broadcast(name, rank)->wait(deadline());
  throw error(Code::kFailedPrecondition, "parameter '{}' got no gradient on rank {} in this step; expected one for every parameter, as unused_parameters is error. Set it "
              "to zero if branches of the model may be left out", reinterpret_cast<const char*>(name.data_ptr<uint8_t>()), rank);
}

double PipelineTrainer::gradient_square() const {
  std::vector<std::string> counted_elsewhere;
  for (const model::Parameter& p : parameters_) {
    if (!owns(p.name)) counted_elsewhere.push_back(p.name);
  }
  const double divisor = (shards_->gradients_are_whole() ? mesh().data : 1) * scaler_.scale() * scaler_.scale();
  if (mesh().tensor == 1) return optimizer_->gradient_square_sum(counted_elsewhere) / divisor;
  // Of ranks that share layers each counts its parts of cut parameters, and all count the others alike.
  std::vector<std::string> but_parts = counted_elsewhere, but_whole = counted_elsewhere;  // names that do not count
  for (const model::Parameter& p : parameters_) (p.is_cut() ? but_parts : but_whole).push_back(p.name);
  const double whole = optimizer_->gradient_square_sum(but_parts), parts = optimizer_->gradient_square_sum(but_whole);
  return (parts + whole / mesh().tensor) / divisor;
}

void PipelineTrainer::update(int64_t step, double learning_rate, double gradient_norm) {
  optimizer_->step(step, learning_rate, clip_factor(gradient_norm, options_.optimizer.clip_norm) / scaler_.scale(), deadline());
  scale_remembered(scaler_.took());
  updates_ = step;
}

bool PipelineTrainer::take_overflow(double loss, double gradient_norm) {
  if (!std::isfinite(loss) || std::isfinite(gradient_norm)) return false;
  const double before = scaler_.scale();
  if (!scaler_.overflowed()) return false;
  scale_remembered(scaler_.scale() / before);
  return true;
}

void PipelineTrainer::restore_scale(const LossScaler::State& state) {
  scaler_.restore(state);
  scale_remembered(scaler_.scale() / (state.scale > 0 ? state.scale : 1));
}

// What rounding has taken from gradients has their scale.
void PipelineTrainer::scale_remembered(double factor) {
  if (factor != 1 && reducer_ && reducer_->rounds()) reducer_->scale_residuals(factor);
}

pipeline::StepResult PipelineTrainer::evaluate(std::span<const pipeline::Microbatch> microbatches, const pipeline::LossFunction& loss, bool keep_outputs) {
  const std::vector<pipeline::Microbatch> here = pipeline::on_device(microbatches, options_.device);
  pipeline::StepRequest request;
  request.schedule = &eval_schedule_;
  request.microbatches = here;
  request.loss = loss;
  request.training = false;
  request.keep_outputs = keep_outputs;
  request.compute = options_.compute;
  if (layer_shards_ == nullptr) return microbatches.empty() ? pipeline::StepResult{} : executor_->run(request);
  layer_shards_->begin(eval_uses_, options_.timeout);
  pipeline::StepResult result;
  if (!microbatches.empty()) result = executor_->run(request);
  layer_shards_->pass();
  (void)layer_shards_->finish();
  return result;
}

void PipelineTrainer::explain_not_finite(int64_t step, const pipeline::StepResult& result) {
  // The largest code wins, so codes fall with what shall be named first.
  constexpr int64_t kLoss = int64_t{1} << 62;
  int64_t code = 0;
  if (result.first_not_finite >= 0) code = kLoss - (int64_t{replica()} * options_.microbatches + result.first_not_finite);
  for (size_t i = 0; i < parameters_.size() && code == 0; ++i) {
    if (!all_finite(shards_->summed_gradient(i))) code = (int64_t{1} << 40) - (int64_t{world_.rank()} << 20) - static_cast<int64_t>(i + 1);
  }
  at::Tensor largest = at::full({1}, code, at::kLong);
  world_.all_reduce(largest, comm::Reduce::kMax)->wait(deadline());
  const int64_t found = largest.item<int64_t>();
  const char* hint = "lower the learning rate or set a clip norm";
  if (found == 0) throw error(Code::kInternal, "step {}: every loss and gradient is finite, but their norm is not; {}", step, hint);
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
