#pragma once
// The parts of one rank's training run and one step of it. Private to src/train; trainer.h is the door.
#include <memory>
#include <optional>
#include <vector>

#include "config/train_config.h"
#include "model/llama_config.h"
#include "pipeline/executor.h"
#include "train/checkpoint.h"
#include "train/data_loader.h"
#include "train/data_parallel_reducer.h"
#include "train/mesh.h"
#include "train/optimizer.h"
#include "train/step_metrics.h"
#include "train/text_corpus.h"
#include "train/timeline.h"

namespace penstock::train {

// Everything of a rank, built in the order in which it depends on each other.
//
// Threads: one. Members hold references to one another: not movable.
class TrainRun {
 public:
  // Collective over `world`: connects the groups, reads the data, builds this rank's stage and sets its initial weights.
  TrainRun(const config::TrainConfig& config, comm::Communicator& world);
  TrainRun(const TrainRun&) = delete;
  TrainRun& operator=(const TrainRun&) = delete;

  // Forward, backward, reduction, clipping, update. `sums` comes back summed over the ranks. `stop_asked`: by this rank's signal.
  // Throws Error when loss or gradients are not finite.
  struct Step {
    StepSums sums;
    double learning_rate = 0;
    double gradient_norm = 0;
  };
  [[nodiscard]] Step step(bool stop_asked);

  // Nats per byte over `batches` micro-batches per replica, spread evenly over the held-out text (0 = all of it). Collective.
  [[nodiscard]] double validate(int batches);

  [[nodiscard]] TrainState state() { return {&stage_->parameters(), &*optimizer_, position_}; }
  void resume_from(const std::filesystem::path& checkpoint);
  [[nodiscard]] CheckpointPlace checkpoint_place() const;

  [[nodiscard]] const RunPosition& position() const { return position_; }
  [[nodiscard]] double progress() const;
  [[nodiscard]] bool over() const { return progress() >= 1; }
  [[nodiscard]] const TextCorpus& corpus() const { return corpus_; }
  [[nodiscard]] const model::LlamaConfig& model_config() const { return model_config_; }
  [[nodiscard]] const Mesh& mesh() const { return mesh_; }
  [[nodiscard]] const BatchShape& batch() const { return batch_; }
  [[nodiscard]] int stage_index() const { return stage_->index(); }
  [[nodiscard]] int replica() const { return mesh_.replica_of(world_.rank()); }
  [[nodiscard]] kernels::Compute compute() const { return compute_; }
  [[nodiscard]] Timeline& timeline() { return timeline_; }
  [[nodiscard]] Deadline deadline() const { return Deadline::after(timeout_); }
  void start_clock();  // time counts from here, on top of what a resumed run has

 private:
  void reduce_tied_gradients();
  void update(Step& step);

  const config::TrainConfig& config_;
  comm::Communicator& world_;
  const Mesh mesh_;
  const BatchShape batch_;
  const seconds timeout_;
  const kernels::Compute compute_;
  const model::LlamaConfig model_config_;
  MeshGroups groups_;
  TextCorpus corpus_;
  std::vector<int64_t> bytes_of_token_;
  std::optional<DataLoader> loader_;
  std::optional<pipeline::Stage> stage_;
  std::optional<DataParallelReducer> reducer_;
  std::optional<Optimizer> optimizer_;
  std::optional<pipeline::Executor> executor_;
  plan::Schedule train_schedule_, validation_schedule_;
  Timeline timeline_;
  RunPosition position_;
  Clock::time_point clock_start_{};
  double elapsed_before_ = 0;
};

// The model that a configuration describes, with the byte tokenizer's vocabulary.
[[nodiscard]] model::LlamaConfig llama_config(const config::TrainModelConfig& model);

}  // namespace penstock::train
