#include "train/train_run.h"

#include <cmath>

#include "kernels/cross_entropy.h"
#include "model/llama.h"
#include "plan/partition.h"
#include "plan/schedule_check.h"
#include "tensor/cpu_features.h"
#include "train/lr_schedule.h"

namespace penstock::train {
namespace {

constexpr const char* kTied = "model.embed_tokens.weight";
constexpr int kTimelineFirstStep = 5;  // the first steps still warm up caches and allocators
constexpr int kTimelineSteps = 10;

seconds whole_seconds(double value) { return seconds(std::max<int64_t>(1, static_cast<int64_t>(std::ceil(value)))); }

kernels::Compute choose_compute(config::Precision precision) {
  const bool bf16 = precision == config::Precision::kBfloat16 || (precision == config::Precision::kAuto && tensor::has_bf16());
  return bf16 ? kernels::Compute::kBf16 : kernels::Compute::kFp32;
}

// Proven complete and free of deadlock before the first step.
plan::Schedule proven(const plan::Schedule& compute) {
  plan::Schedule schedule = plan::with_communication(compute);
  for (const auto& wrong : {plan::check_complete(schedule), plan::find_deadlock(schedule, 1)}) {
    if (wrong) throw error(Code::kInvalidArgument, "schedule {}: {}", schedule.name, *wrong);
  }
  return schedule;
}

plan::Schedule training_schedule(const config::TrainConfig& config) {
  const auto make = config.schedule == config::ScheduleName::kGpipe ? plan::gpipe : plan::one_f_one_b;
  return proven(make(config.mesh.pipe, config.batch.microbatches));
}

plan::Boundaries partition(const config::TrainConfig& config, const std::vector<model::LayerSpec>& specs) {
  std::vector<int64_t> parameters;
  for (const auto& spec : specs) parameters.push_back(spec.num_parameters);
  const char* method = config.partition == config::PartitionMethod::kUniform ? "uniform" : "parameters";
  return plan::partition_by_name(method, parameters, config.mesh.pipe).value();
}

plan::BucketLimits bucket_limits(double mib) {
  const auto bytes = static_cast<int64_t>(mib * (1 << 20));
  return {bytes, std::max<int64_t>(plan::kBucketAlignment, bytes / 4)};
}

at::Tensor loss_of(const model::Tensors& outputs, const model::Tensors& targets) {
  return kernels::cross_entropy_sum(outputs.at(0), targets.at(0));
}

}  // namespace

model::LlamaConfig llama_config(const config::TrainModelConfig& m) {
  const text::Tokenizer tokenizer = text::byte_tokenizer();
  model::LlamaConfig c;
  c.vocab_size = tokenizer.vocab_size();
  c.hidden_size = m.hidden_size;
  c.num_layers = m.num_layers;
  c.num_heads = m.num_heads;
  c.num_kv_heads = m.num_kv_heads;
  c.head_size = m.hidden_size / m.num_heads;
  c.intermediate_size = m.intermediate_size;
  c.max_position_embeddings = m.max_position_embeddings;
  c.rope_theta = m.rope_theta;
  c.rms_norm_eps = m.rms_norm_eps;
  c.tie_word_embeddings = m.tie_word_embeddings;
  c.eos_token_id = tokenizer.end_id();
  // Keeps the size of activations from layer to layer; the fixed 0.02 of larger models makes narrow ones start slowly.
  c.initializer_range = 1 / std::sqrt(static_cast<double>(m.hidden_size));
  return c;
}

TrainRun::TrainRun(const config::TrainConfig& config, comm::Communicator& world)
    : config_(config),
      world_(world),
      mesh_{config.mesh.data, config.mesh.pipe},
      batch_{config.mesh.data, config.batch.microbatches, config.batch.microbatch_size, config.batch.sequence_length},
      timeout_(whole_seconds(config.timeout_seconds)),
      compute_(choose_compute(config.precision)),
      model_config_(llama_config(config.model)),
      groups_(make_groups(world, mesh_, config.model.tie_word_embeddings, deadline())),
      train_schedule_(training_schedule(config)),
      validation_schedule_(proven(plan::forward_only(config.mesh.pipe, config.batch.microbatches))),
      timeline_(mesh_, world.rank()) {
  const text::Tokenizer tokenizer = text::byte_tokenizer();
  for (int id = 0; id < tokenizer.vocab_size(); ++id) bytes_of_token_.push_back(static_cast<int64_t>(tokenizer.bytes_of(id).size()));
  corpus_ = load_text_corpus(config.data, tokenizer).value();
  if (static_cast<int64_t>(corpus_.train.ids.size()) <= batch_.sequence_length || corpus_.validation.ids.size() < 2) {
    throw error(Code::kInvalidArgument, "data.path: {} tokens to train on and {} to validate on; expected more than {} and at least 2",
                corpus_.train.ids.size(), corpus_.validation.ids.size(), batch_.sequence_length);
  }
  loader_.emplace(corpus_.train, batch_, static_cast<uint64_t>(config.seed));

  const auto specs = model::llama_layers(model_config_);
  stage_.emplace(specs, partition(config, specs), mesh_.stage_of(world.rank()));
  for (model::Parameter& p : stage_->parameters()) model::initialize(p, static_cast<uint64_t>(config.seed));
  reducer_.emplace(stage_->parameters(), groups_.replicas.get(), bucket_limits(config.bucket_mib));
  optimizer_.emplace(stage_->parameters(), config.optimizer);
  executor_.emplace(*groups_.pipe, std::vector<pipeline::Stage*>{&*stage_}, timeout_);
}

void TrainRun::start_clock() { clock_start_ = Clock::now(); }

double TrainRun::progress() const { return run_progress(position_.step, config_.steps, position_.elapsed_seconds, config_.max_seconds); }

CheckpointPlace TrainRun::checkpoint_place() const {
  return {std::filesystem::path(config_.output) / "checkpoints", stage_->index(), mesh_.pipe, replica() == 0};
}

void TrainRun::resume_from(const std::filesystem::path& checkpoint) {
  TrainState loaded = state();
  read_checkpoint(checkpoint, loaded);
  position_ = loaded.position;
  elapsed_before_ = position_.elapsed_seconds;
}

TrainRun::Step TrainRun::step(bool stop_asked) {
  const auto microbatches = loader_->step(position_.step, replica());
  pipeline::StepRequest request;
  request.schedule = &train_schedule_;
  request.microbatches = microbatches;
  request.loss = loss_of;
  request.loss_scale = 1.0 / static_cast<double>(batch_.tokens_per_step());  // every target counts, so the token count is known
  request.compute = compute_;
  request.before_last_backward = [this](int) { reducer_->arm(); };

  reducer_->begin_step();
  const pipeline::StepResult result = executor_->run(request);
  const auto reductions = reducer_->finish(deadline());
  reduce_tied_gradients();

  Step step;
  step.sums.loss_sum = result.loss_sum;
  step.sums.add_records(result.records, reductions, stage_->is_first(), mesh_.pipe);
  step.sums.stop = stop_asked ? 1 : 0;
  if (position_.step >= kTimelineFirstStep && position_.step < kTimelineFirstStep + kTimelineSteps) {
    timeline_.add_step(position_.step, result.records, reductions);
  }
  update(step);
  return step;
}

void TrainRun::reduce_tied_gradients() {
  if (!groups_.tied) return;
  for (model::Parameter& p : stage_->parameters()) {
    if (p.name != kTied) continue;
    at::Tensor gradient = p.value.grad();
    groups_.tied->all_reduce(gradient, comm::Reduce::kSum)->wait(deadline());
  }
}

void TrainRun::update(Step& step) {
  const int64_t start_us = now_us();
  const std::vector<std::string> counted_elsewhere = groups_.tied && !stage_->is_first() ? std::vector<std::string>{kTied} : std::vector<std::string>{};
  step.sums.gradient_square = optimizer_->gradient_square_sum(counted_elsewhere) / mesh_.data;
  if (world_.rank() == 0) step.sums.elapsed_seconds = elapsed_before_ + to_seconds(Clock::now() - clock_start_);
  step.sums.all_reduce(world_, deadline());

  step.gradient_norm = std::sqrt(step.sums.gradient_square);
  step.learning_rate = learning_rate(config_.optimizer, position_.step, progress());
  if (!std::isfinite(step.sums.loss_sum) || !std::isfinite(step.gradient_norm)) {
    throw error(Code::kInternal, "step {}: loss {} or gradient norm {} is not finite; lower optimizer.lr or set optimizer.clip_norm",
                position_.step, step.sums.loss_sum, step.gradient_norm);
  }
  optimizer_->step(position_.step + 1, step.learning_rate, clip_factor(step.gradient_norm, config_.optimizer.clip_norm));
  ++position_.step;
  position_.tokens += batch_.tokens_per_step();
  position_.elapsed_seconds = step.sums.elapsed_seconds;
  if (position_.step > kTimelineFirstStep && position_.step <= kTimelineFirstStep + kTimelineSteps) {
    timeline_.add_span("optimizer", start_us, now_us());
  }
}

double TrainRun::validate(int batches) {
  const int64_t all = validation_batches(corpus_.validation, batch_);
  const int64_t wanted = batches == 0 ? all : std::min<int64_t>(batches, all);
  StepSums sums;
  for (int64_t first = 0; first < wanted; first += batch_.microbatches) {
    std::vector<pipeline::Microbatch> microbatches;
    for (int64_t b = first; b < first + batch_.microbatches; ++b) {
      // Spread evenly over the text. Past the wanted ones: an index past the end has no targets, and counts nothing.
      microbatches.push_back(validation_batch(corpus_.validation, batch_, b < wanted ? b * all / wanted : all, replica()));
      const at::Tensor& targets = microbatches.back().targets[0];
      for (int64_t i = 0; stage_->is_last() && i < targets.numel(); ++i) {
        const int64_t id = targets.data_ptr<int64_t>()[i];
        if (id >= 0) sums.bytes += static_cast<double>(bytes_of_token_[static_cast<size_t>(id)]);
      }
    }
    pipeline::StepRequest request;
    request.schedule = &validation_schedule_;
    request.microbatches = microbatches;
    request.loss = loss_of;
    request.training = false;
    request.compute = compute_;
    sums.loss_sum += executor_->run(request).loss_sum;
  }
  sums.all_reduce(world_, deadline());
  return sums.loss_sum / sums.bytes;
}

}  // namespace penstock::train
