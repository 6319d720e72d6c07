#pragma once
// The parts of one rank's training run and one step of it. Private to src/train; trainer.h is the door.
#include <memory>
#include <optional>
#include <vector>

#include "config/train_config.h"
#include "model/tensor_ranks.h"
#include "pipeline/executor.h"
#include "train/checkpoint_writer.h"
#include "train/pipeline_trainer.h"
#include "train/run_data.h"
#include "train/run_model.h"
#include "train/step_metrics.h"
#include "train/time_account.h"
#include "train/timeline.h"

namespace penstock::train {

[[nodiscard]] kernels::Compute choose_compute(config::Precision precision, const at::Device& device);

// Everything of a rank, built in the order in which it depends on each other.
//
// Threads: one. Members hold references to one another: not movable.
class TrainRun {
 public:
  // Collective over `world`: connects the groups, reads the data, builds this rank's stage on `device` and sets its initial weights.
  TrainRun(const config::TrainConfig& config, comm::Communicator& world, at::Device device);
  TrainRun(const TrainRun&) = delete;
  TrainRun& operator=(const TrainRun&) = delete;

  // Forward, backward, reduction, clipping, update. `sums` comes back summed over the ranks. `stop_asked`: by this rank's signal.
  // Throws Error when loss or gradients are not finite or the loss is a spike, unless such steps are to be skipped.
  struct Step {
    StepSums sums;
    double learning_rate = 0;
    double gradient_norm = 0;
    std::string skipped;  // why there was no update; empty: there was one
  };
  [[nodiscard]] Step step(bool stop_asked);

  // Nats per byte over `batches` micro-batches per replica, spread evenly over the held-out text (0 = all of it). Collective.
  [[nodiscard]] double validate(int batches);

  [[nodiscard]] TrainState state() { return {&trainer_->parameters(), &trainer_->shards(), &trainer_->optimizer(), position_, guard_.state(), tensor_group(), trainer_->scaler().state(), &*trainer_}; }
  // Goes on from there. Returns the keys of the configuration that have changed since, with both values; empty: none. Throws Error kInvalidArgument
  // where model or optimizer are others, with the keys.
  std::string resume_from(const std::filesystem::path& checkpoint);
  [[nodiscard]] CheckpointPlace checkpoint_place() const;

  [[nodiscard]] const RunPosition& position() const { return position_; }
  [[nodiscard]] int64_t skipped_steps() { return guard_.skipped() + overflowed_steps(); }
  [[nodiscard]] int64_t overflowed_steps() { return trainer_->scaler().state().overflows; }
  [[nodiscard]] double progress() const;
  [[nodiscard]] bool over() const { return progress() >= 1; }
  [[nodiscard]] const data::Corpus& corpus() const { return data_.corpus(); }
  [[nodiscard]] const RunModel& run_model() const { return model_; }
  [[nodiscard]] const plan::Topology& mesh() const { return trainer_->mesh(); }
  [[nodiscard]] PipelineTrainer& trainer() { return *trainer_; }
  [[nodiscard]] const BatchShape& batch() const { return batch_; }
  [[nodiscard]] int replica() const { return trainer_->replica(); }
  // Those that share this rank's layers; null: none.
  [[nodiscard]] comm::Communicator* tensor_group() { return tensor_group_.get(); }
  [[nodiscard]] at::Device device() const { return device_; }
  [[nodiscard]] kernels::Compute compute() const { return compute_; }
  [[nodiscard]] Timeline& timeline() { return *timeline_; }
  [[nodiscard]] Deadline deadline() const { return Deadline::after(timeout_); }
  void start_clock();  // time counts from here, on top of what a resumed run has
  [[nodiscard]] double wall_seconds() const;  // since then
  [[nodiscard]] TimeAccount& time() { return time_; }
  // No later step goes into the timeline.
  [[nodiscard]] bool timeline_is_full() const;
  // A resumed run that ends before it has a step for one: that of the run before is better than none.
  [[nodiscard]] bool keeps_earlier_timeline() const { return first_step_ > 0 && steps_done() <= kTimelineFirstStep; }
  // Of this rank's parameters, and of their gradients.
  [[nodiscard]] std::pair<double, double> weight_and_gradient_bytes();

 private:
  static constexpr int kTimelineFirstStep = 5;  // the first steps still warm up caches and allocators
  static constexpr int kTimelineSteps = 10;

  [[nodiscard]] int64_t steps_done() const { return position_.step - first_step_; }  // since this start
  // The model's layers, of which this rank may have a part. Collective over `world`.
  [[nodiscard]] std::vector<model::LayerSpec> make_layers();
  [[nodiscard]] at::Tensor loss(const model::Tensors& outputs, const model::Tensors& targets) const;
  [[nodiscard]] std::vector<pipeline::Microbatch> next_microbatches();
  // Targets of this step over all replicas. Collective where they must be counted.
  [[nodiscard]] double count_targets(const std::vector<pipeline::Microbatch>& microbatches);
  void update(Step& step, const pipeline::StepResult& result);
  // True: the update may be made.
  [[nodiscard]] bool is_good(Step& step, const pipeline::StepResult& result);

  const config::TrainConfig& config_;
  comm::Communicator& world_;
  const BatchShape batch_;
  const seconds timeout_;
  const at::Device device_;
  const kernels::Compute compute_;
  const RunModel model_;
  const RunData data_;
  std::unique_ptr<comm::Communicator> tensor_group_;
  std::optional<model::TensorRanks> tensor_;
  int64_t first_token_ = 0;  // whose logits this rank has
  const pipeline::LossFunction loss_ = [this](const model::Tensors& outputs, const model::Tensors& targets) { return loss(outputs, targets); };
  std::optional<PipelineTrainer> trainer_;
  std::optional<Timeline> timeline_;
  RunPosition position_;
  int64_t first_step_ = 0;  // where this start went on from
  StepGuard guard_;
  TimeAccount time_;
  Clock::time_point clock_start_{};
  double elapsed_before_ = 0;
};

}  // namespace penstock::train
