#include "train/train_run.h"

#include <cmath>

#include "base/flight_recorder.h"
#include "comm/recorded_communicator.h"
#include "kernels/cross_entropy.h"
#include "model/families.h"
#include "model/tensor_cross_entropy.h"
#include "tensor/device.h"
#include "train/checkpoint.h"
#include "train/lr_schedule.h"
#include "train/resume_check.h"

namespace penstock::train {

kernels::Compute choose_compute(config::Precision precision, const at::Device& device) {
  if (precision == config::Precision::kFloat16) return kernels::Compute::kFp16;
  const bool bf16 = precision == config::Precision::kBfloat16 || (precision == config::Precision::kAuto && tensor::computes_in_bf16(device));
  return bf16 ? kernels::Compute::kBf16 : kernels::Compute::kFp32;
}

namespace {

seconds whole_seconds(double value) { return seconds(std::max<int64_t>(1, static_cast<int64_t>(std::ceil(value)))); }

// "optimizer.lr 0.1 (before: 0.005), ..." of keys that begin so and say something else; where a run writes and how its ranks meet does not matter.
std::string changes(const config::TrainConfig& now, const config::TrainConfig& before, std::string_view beginning = "") {
  const auto after = config::key_values(now), earlier = config::key_values(before);  // the same keys in the same order
  std::vector<std::string> found;
  for (size_t i = 0; i < after.size(); ++i) {
    const auto& [key, value] = after[i];
    if (!key.starts_with(beginning) || value == earlier[i].second || key == "output" || key.starts_with("network.")) continue;
    found.push_back(fmt::format("{} {} (before: {})", key, value, earlier[i].second));
  }
  return fmt::format("{}", fmt::join(found, ", "));
}

plan::Topology mesh_of(const config::TrainConfig& config) { return {config.mesh.pipe, config.mesh.data, config.mesh.tensor}; }

TrainerOptions trainer_options(const config::TrainConfig& config, at::Device device, kernels::Compute compute, const pipeline::LossFunction& loss, const pipeline::Microbatch& sample) {
  TrainerOptions options;
  options.mesh = mesh_of(config);
  options.schedule = config.schedule;
  options.chunks = config.chunks;
  options.partition = config.partition;
  options.microbatches = config.batch.microbatches;
  options.checkpoint_layers = config.activation_checkpoint_layers;
  options.compute = compute;
  options.device = device;
  options.fp16 = config.fp16;
  options.optimizer = config.optimizer;
  options.sharding = config.sharding;
  options.bucket_mib = config.bucket_mib;
  options.unused_parameters = config.unused_parameters;
  options.reduce_dtype = config.reduce_dtype;
  options.seed = static_cast<uint64_t>(config.seed);
  options.memory_limit = config.memory_limit_gib * (1 << 30);
  options.sample = pipeline::ProfileRequest{sample, loss, compute, options.seed, 3};
  options.timeout = whole_seconds(config.timeout_seconds);
  return options;
}

}  // namespace

TrainRun::TrainRun(const config::TrainConfig& config, comm::Communicator& world, at::Device device)
    : config_(config),
      world_(world),
      batch_{config.mesh.data, config.batch.microbatches, config.batch.microbatch_size, config.batch.sequence_length},
      timeout_(whole_seconds(config.timeout_seconds)),
      device_(device),
      compute_(choose_compute(config.precision, device)),
      model_(open_run_model(config)),
      data_(config.data, batch_, static_cast<uint64_t>(config.seed), config.model.path),
      guard_(config.bad_step) {
  TrainerOptions options = trainer_options(config, device_, compute_, loss_, data_.loader().step(0, 0).at(0));
  if (model_.weights) options.initialize = [&](model::Parameter& parameter) { model_.weights->load(parameter); };
  trainer_.emplace(world, make_layers(), options);
  if (model_.weights) model_.weights->require_all_used(trainer_->parameters());
  timeline_.emplace(trainer_->mesh(), trainer_->schedule(), world.rank());
}

std::vector<model::LayerSpec> TrainRun::make_layers() {
  const int ranks = config_.mesh.tensor;
  if (ranks == 1) return model::transformer_layers(model_.config);
  if (ranks > model_.config.num_kv_heads) {
    throw error(Code::kUnimplemented, "mesh.tensor: {} ranks would share {} heads of keys and values (num_kv_heads), whose gradients are not summed; expected at most {}", ranks,
                model_.config.num_kv_heads, model_.config.num_kv_heads);
  }
  tensor_group_ = make_tensor_group(world_, mesh_of(config_), deadline());
  tensor_.emplace(*tensor_group_, timeout_, model::SharedLogits::kOwn);
  first_token_ = plan::tensor_part(model_.config.tensor_sizes(), tensor_->rank(), ranks).value().vocab.begin;
  return model::transformer_layers(model_.config, &*tensor_);
}

at::Tensor TrainRun::loss(const model::Tensors& outputs, const model::Tensors& targets) const {
  if (tensor_) return model::cross_entropy_sum(outputs.at(0), targets.at(0), first_token_, *tensor_);
  return kernels::cross_entropy_sum(outputs.at(0), targets.at(0));
}

void TrainRun::start_clock() { clock_start_ = Clock::now(); }

double TrainRun::wall_seconds() const { return to_seconds(Clock::now() - clock_start_); }

bool TrainRun::timeline_is_full() const { return steps_done() >= kTimelineFirstStep + kTimelineSteps; }

std::pair<double, double> TrainRun::weight_and_gradient_bytes() {
  double weights = 0, gradients = 0;
  for (const model::Parameter& p : trainer_->parameters()) {
    weights += static_cast<double>(p.value.nbytes());
    if (p.value.grad().defined()) gradients += static_cast<double>(p.value.grad().nbytes());
  }
  return {weights, gradients};
}

double TrainRun::progress() const { return run_progress(position_.step, config_.steps, position_.elapsed_seconds, config_.max_seconds); }

CheckpointPlace TrainRun::checkpoint_place() const {
  return {std::filesystem::path(config_.output) / "checkpoints", trainer_->pipe_rank(), mesh().pipe, replica(), mesh().data, trainer_->tensor_rank() == 0};
}

std::string TrainRun::resume_from(const std::filesystem::path& checkpoint) {
  const auto written = config::parse_train_config(formats::read_manifest(checkpoint).value().config, checkpoint.string()).value();
  if (written.model != config_.model) {
    throw error(Code::kInvalidArgument, "--resume: {} is of another model: {}", checkpoint.string(), changes(config_, written, "model."));
  }
  if (written.optimizer.name != config_.optimizer.name) {
    throw error(Code::kInvalidArgument, "--resume: {} holds the state of another optimizer: {}; to go on with the weights alone, name a directory that `penstock checkpoint "
                "export` makes of it in model.path", checkpoint.string(), changes(config_, written, "optimizer.name"));
  }
  require_same_model(checkpoint, model_);
  TrainState loaded = state();
  read_checkpoint(checkpoint, loaded);
  position_ = loaded.position;
  guard_.restore(loaded.guard);
  trainer_->restore_scale(loaded.scaler);
  elapsed_before_ = position_.elapsed_seconds;
  first_step_ = position_.step;
  return changes(config_, written);
}

TrainRun::Step TrainRun::step(bool stop_asked) {
  if (comm::recorder_of(world_) != nullptr) comm::recorder_of(world_)->begin_step(position_.step + 1);
  const auto microbatches = next_microbatches();
  Step step;
  step.sums.targets = count_targets(microbatches);
  const auto start = Clock::now();
  const auto gradients = trainer_->compute_gradients(microbatches, loss_, 1 / step.sums.targets);
  time_.add_gradients(gradients.step.records, gradients.reductions, to_seconds(Clock::now() - start));
  step.sums.loss_sum = gradients.step.loss_sum / mesh().tensor;  // all ranks that share layers have it
  step.sums.add_records(gradients.step.records, gradients.reductions, trainer_->pipe_rank() == 0, mesh().pipe);
  step.sums.add_own(world_.rank(), world_.size());
  step.sums.stop = stop_asked ? 1 : 0;
  if (steps_done() >= kTimelineFirstStep && steps_done() < kTimelineFirstStep + kTimelineSteps) {
    timeline_->add_step(position_.step, gradients.step.records, gradients.reductions);
  }
  update(step, gradients.step);
  if (comm::recorder_of(world_) != nullptr) comm::recorder_of(world_)->end_step();
  return step;
}

std::vector<pipeline::Microbatch> TrainRun::next_microbatches() {
  const FlightScope scope(comm::recorder_of(world_), {.name = "data"});
  const TimeAccount::Span span(time_, Spent::kData);
  return data_.loader().step(position_.step, replica());
}

double TrainRun::count_targets(const std::vector<pipeline::Microbatch>& microbatches) {
  if (data_.every_target_counts()) return static_cast<double>(batch_.tokens_per_step());
  at::Tensor count = at::empty({1}, at::kDouble);
  *count.data_ptr<double>() = trainer_->pipe_rank() == 0 && trainer_->tensor_rank() == 0 ? static_cast<double>(train::count_targets(microbatches)) : 0;  // once a replica
  world_.all_reduce(count, comm::Reduce::kSum)->wait(deadline());
  return std::max(1.0, *count.data_ptr<double>());  // a step without targets has no loss and no gradient
}

void TrainRun::update(Step& step, const pipeline::StepResult& result) {
  const FlightScope scope(comm::recorder_of(world_), {.name = "optimizer"});
  const int64_t start_us = now_us();
  const auto start = Clock::now();
  step.sums.gradient_square = trainer_->gradient_square();
  if (world_.rank() == 0) step.sums.elapsed_seconds = elapsed_before_ + to_seconds(Clock::now() - clock_start_);
  const auto reduced_from = Clock::now();
  step.sums.all_reduce(world_, deadline());
  const double waited = to_seconds(Clock::now() - reduced_from);

  step.gradient_norm = std::sqrt(step.sums.gradient_square);
  step.learning_rate = learning_rate(config_.optimizer, position_.step, progress());
  if (is_good(step, result)) trainer_->update(position_.step + 1 - skipped_steps(), step.learning_rate, step.gradient_norm);
  ++position_.step;
  position_.tokens += batch_.tokens_per_step();
  position_.elapsed_seconds = step.sums.elapsed_seconds;
  if (steps_done() > kTimelineFirstStep && steps_done() <= kTimelineFirstStep + kTimelineSteps) {
    timeline_->add_span("optimizer", start_us, now_us());
  }
  time_.add(Spent::kRanks, waited);
  time_.add(Spent::kOptimizer, to_seconds(Clock::now() - start) - waited);
}

bool TrainRun::is_good(Step& step, const pipeline::StepResult& result) {
  const bool finite = std::isfinite(step.sums.loss_sum) && std::isfinite(step.gradient_norm);
  const double scale = trainer_->scaler().scale();
  if (!finite && trainer_->take_overflow(step.sums.loss_sum, step.gradient_norm)) {
    step.skipped = fmt::format("step {}: gradients overflow float16 at a loss scale of {:g}, which is {:g} now", position_.step + 1, scale, trainer_->scaler().scale());
    return false;
  }
  const auto [verdict, reason] = guard_.judge(step.sums.mean_loss(), finite);
  if (verdict == StepGuard::Verdict::kTake) return true;
  const int64_t number = position_.step + 1;
  try {
    if (!finite) trainer_->explain_not_finite(number, result);
    throw error(Code::kInternal, "step {}: {}", number, reason);
  } catch (const Error& e) {
    if (verdict == StepGuard::Verdict::kStop) throw finite || reason.empty() ? e : error(e.code(), "{}; {}", e.message(), reason);
    step.skipped = e.message();
  }
  return false;
}

double TrainRun::validate(int batches) {
  const FlightScope scope(comm::recorder_of(world_), {.name = "validation"});
  const TimeAccount::Span span(time_, Spent::kValidation);
  const int64_t all = data_.validation_batches();
  const int64_t wanted = batches == 0 ? all : std::min<int64_t>(batches, all);
  StepSums sums;
  for (int64_t first = 0; first < wanted; first += batch_.microbatches) {
    std::vector<pipeline::Microbatch> microbatches;
    for (int64_t b = first; b < first + batch_.microbatches; ++b) {
      // Spread evenly over the text. Past the wanted ones: an index past the end has no targets, and counts nothing.
      microbatches.push_back(data_.validation_batch(b < wanted ? b * all / wanted : all, replica()));
      if (trainer_->has_last_stage()) sums.bytes += static_cast<double>(data_.text_bytes(microbatches.back().targets[0]));
    }
    sums.loss_sum += trainer_->evaluate(microbatches, loss_, false).loss_sum;
  }
  sums.all_reduce(world_, deadline());
  return sums.loss_sum / sums.bytes;
}

}  // namespace penstock::train
