#pragma once
// Trains a list of layers on a mesh of ranks: pipeline stages × data-parallel replicas × ranks that share layers. The training half of the library's public face.
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "config/train_config.h"
#include "model/layer.h"
#include "pipeline/executor.h"
#include "pipeline/layer_profile.h"
#include "plan/partition.h"
#include "plan/topology.h"
#include "plan/layer_uses.h"
#include "train/bucket_shards.h"
#include "train/data_parallel_reducer.h"
#include "train/layer_shards.h"
#include "train/loss_scaler.h"
#include "train/mesh_groups.h"
#include "train/optimizer.h"

namespace penstock::train {

struct TrainerOptions {
  // pipe · data · tensor ranks, as many as the job has. tensor > 1: the layers are made with a model::TensorRanks over make_tensor_group(), get the same batches on
  // all ranks that share them, and mark their parameters (StoredCut); not with lamb or lars, nor with what measures layers.
  plan::Topology mesh;
  // A name of plan::known_schedules(), a CSV file whose name ends in .csv, or "auto": 1f1b, or eager-1f1b where the measured hop between
  // stages and the measured layers make it faster (needs `sample`).
  std::string schedule = "1f1b";
  int chunks = 0;                    // stages per rank; 0 = the schedule's own number
  // plan::PartitionRequest::method, layers weighing their parameters; or "profiled": min-max of their measured forward and backward time
  // (needs `sample`).
  std::string partition = "minmax";
  double memory_limit = 0;           // bytes that a rank may hold (weights, gradients, optimizer state; profiled: also activations); 0 = no limit
  int microbatches = 4;              // of each replica and step
  int checkpoint_layers = 0;         // > 0: keep activations of every so many layers only, and compute the rest again
  kernels::Compute compute = kernels::Compute::kFp32;
  config::Fp16Config fp16;  // with compute kFp16
  // Where this rank computes (tensor/device.h): weights, gradients, moments and activations lie there. Layers make parameters on the CPU, from where they are moved, and their
  // constants on the device of their inputs.
  at::Device device = at::kCPU;
  config::OptimizerConfig optimizer;
  // What each replica keeps a part of only, as bucket_shards.h and layer_shards.h say. With several micro-batches kGradients and kParameters add up in another
  // order than the others do: results then differ from theirs by rounding.
  config::Sharding sharding = config::Sharding::kNone;
  double bucket_mib = 1;             // gradients that are reduced in one go
  config::UnusedParameters unused_parameters = config::UnusedParameters::kZero;  // kError: see compute_gradients()
  config::ReduceDtype reduce_dtype = config::ReduceDtype::kFloat32;  // in which they travel between hosts
  uint64_t seed = 1;                 // of the initial weights
  // Sets a parameter of this rank, which is on the CPU then, before the first step; empty: model::initialize() with the seed. A tied copy on another rank must come out the same.
  std::function<void(model::Parameter&)> initialize = {};
  seconds timeout{60};               // deadline of every wait between ranks
  std::optional<pipeline::ProfileRequest> sample;  // a micro-batch of the usual shape and the loss, to measure layers with
};

// What one optimizer step came to; the same on every rank.
struct StepOutcome {
  double loss = 0;           // sum of the losses / number of items
  double gradient_norm = 0;  // before clipping
  double items = 0;          // of all replicas
  bool overflowed = false;   // compute kFp16: gradients overflowed at this scale of the loss, which is halved now; nothing was updated
};

// One rank's part of the training of one model. All ranks make the same calls in the same order.
//
//     auto world = comm::connect_c10d(*cluster::rank_from_environment().value());
//     train::TrainerOptions options;
//     options.mesh = {.pipe = 2, .data = 2};
//     train::PipelineTrainer trainer(*world, my_layers(), options);
//     for (int step = 0; step < 100; ++step) {
//       auto [inputs, targets] = my_batch(step, trainer.replica());
//       auto outcome = trainer.train_batch(inputs, targets, my_loss, 1e-3);
//     }
//
// Threads:  one. Not movable: its members hold references to one another.
// Blocking: every wait between ranks ends at options.timeout with an Error that says what was waited for; only the profile, which rank 0 makes
//           while the others wait, has ten minutes.
// Errors:   throws Error. What all ranks see alike (a refused option or batch, a loss that is not finite) leaves the group alive; after any other
//           the group is dead on every rank.
class PipelineTrainer {
 public:
  // Collective over `world`, which outlives it. Builds this rank's stages and sets their initial weights. kInvalidArgument names the option.
  PipelineTrainer(comm::Communicator& world, std::vector<model::LayerSpec> layers, const TrainerOptions& options);
  PipelineTrainer(const PipelineTrainer&) = delete;
  PipelineTrainer& operator=(const PipelineTrainer&) = delete;

  // One step on this replica's batch, tensors [B, ...] on any device: cut along dim 0 into micro-batches, uneven ones too. Ranks without the first stage
  // need no inputs, ranks without the last no targets; they may give them all the same. The result equals that of the whole batch in one piece,
  // all replicas' rows weighing alike. A replica whose data has run out gives tensors of no rows ([0, ...]): it takes part in the sums and the update,
  // and weighs nothing. When none has a row left, nothing is updated, and the outcome has 0 items.
  // `loss`: a scalar sum over its items. `items` counts those of targets; without it the elements of the first, of integers only those >= 0, as
  // losses leave out negative ids. kInvalidArgument, on all ranks: a batch that cannot be cut, or inputs and targets that do not fit.
  using ItemCount = std::function<double(const model::Tensors& targets)>;
  [[nodiscard]] StepOutcome train_batch(const model::Tensors& inputs, const model::Tensors& targets, const pipeline::LossFunction& loss,
                                        double learning_rate, const ItemCount& items = {});

  // The last stage's outputs for a whole batch, joined along dim 0 over all micro-batches; empty on other ranks, and of a batch of no rows. May come
  // between train_batch() calls.
  [[nodiscard]] model::Tensors eval_batch(const model::Tensors& inputs);

  // The parts of train_batch(), for callers that make micro-batches of their own: gradients summed over the replicas and over tied copies, of which
  // shards() has this rank's part where anything is sharded. No micro-batches, on every rank of a replica: it adds zeros. With unused_parameters kError: kFailedPrecondition, on every rank the same, naming the first
  // parameter that got no gradient and its rank, when a replica with micro-batches has one ...
  struct Gradients {
    pipeline::StepResult step;
    std::vector<ReductionRecord> reductions;
  };
  [[nodiscard]] Gradients compute_gradients(std::span<const pipeline::Microbatch> microbatches, const pipeline::LossFunction& loss, double loss_scale);
  // ... this rank's share of the squared norm, whose sum over all ranks is the whole's; the scale of a loss in float16, which gradients have, is taken out ...
  [[nodiscard]] double gradient_square() const;
  // ... and the update; `step` counts from 1, and train_batch() goes on from it.
  void update(int64_t step, double learning_rate, double gradient_norm);
  // ... or, where this is true, no update: with compute kFp16 gradients that are not finite while the loss is show that its scale was too large. Halves it.
  [[nodiscard]] bool take_overflow(double loss, double gradient_norm);
  // Forward over micro-batches of their own, as many as a step has, or none.
  [[nodiscard]] pipeline::StepResult evaluate(std::span<const pipeline::Microbatch> microbatches, const pipeline::LossFunction& loss, bool keep_outputs);

  // Throws kInternal, on every rank the same, naming the first replica and micro-batch whose loss, or else the first parameter whose gradient, is
  // NaN or infinite. Collective; called when the sum or the norm is not finite.
  [[noreturn]] void explain_not_finite(int64_t step, const pipeline::StepResult& result);

  [[nodiscard]] const plan::Topology& mesh() const { return options_.mesh; }
  [[nodiscard]] const plan::Schedule& schedule() const { return train_schedule_; }
  [[nodiscard]] const plan::Boundaries& boundaries() const { return boundaries_; }
  // How many updates the optimizer's moments have seen. A checkpoint that is read says so; train_batch() counts on.
  [[nodiscard]] int64_t updates() const { return updates_; }
  void set_updates(int64_t updates) { updates_ = updates; }
  [[nodiscard]] int replica() const { return mesh().coordinates(world_.rank()).data; }
  [[nodiscard]] int pipe_rank() const { return mesh().coordinates(world_.rank()).pipe; }
  [[nodiscard]] int tensor_rank() const { return mesh().coordinates(world_.rank()).tensor; }
  [[nodiscard]] bool has_first_stage() const { return train_schedule_.rank_of(0) == pipe_rank(); }
  [[nodiscard]] bool has_last_stage() const { return train_schedule_.rank_of(train_schedule_.num_stages - 1) == pipe_rank(); }
  // Of this rank's stages, each once, by rising stage. With sharding kParameters their values have no memory between uses: ask shards() for them.
  [[nodiscard]] std::vector<model::Parameter>& parameters() { return parameters_; }
  [[nodiscard]] ParameterShards& shards() { return *shards_; }
  // False for a copy of a tied parameter that an earlier pipe rank has too: that one is counted and written.
  [[nodiscard]] bool owns(const std::string& parameter) const;
  // The pipe ranks that have it, rising.
  [[nodiscard]] std::vector<int> holders(const std::string& parameter) const;
  [[nodiscard]] Optimizer& optimizer() { return *optimizer_; }
  [[nodiscard]] const LossScaler& scaler() const { return scaler_; }
  // Goes on with a checkpoint's scale. After what rounding took from gradients is restored, which has that scale.
  void restore_scale(const LossScaler::State& state);
  // Null with sharding of gradients or parameters.
  [[nodiscard]] DataParallelReducer* reducer() { return reducer_ ? &*reducer_ : nullptr; }
  // Between steps: `change` lays the reducer's buckets out anew; what depends on their places follows. Collective over the replicas.
  void change_places(const std::function<void()>& change);
  [[nodiscard]] Deadline deadline() const { return Deadline::after(options_.timeout); }

 private:
  void choose_schedule();
  void build_stages(const std::vector<model::LayerSpec>& layers);
  void set_initial_value(model::Parameter& parameter) const;
  void build_reducer(bool shards_optimizer);
  void build_layer_shards();
  [[nodiscard]] std::vector<size_t> tied_parameters() const;
  void scale_remembered(double factor);
  [[nodiscard]] Gradients reduced_gradients(std::span<const pipeline::Microbatch> microbatches, const pipeline::LossFunction& loss, double loss_scale);
  void refuse_unused_parameters(bool has_microbatches);
  void check_tied(const std::vector<model::LayerSpec>& layers, const model::SharedWeights& shared) const;
  struct Batch {
    std::vector<pipeline::Microbatch> microbatches;  // of this replica, what this rank needs of them; none when it has no rows
    double rows = 0, items = 0;                      // of all replicas
  };
  [[nodiscard]] Batch agree_on_batch(const model::Tensors& inputs, const model::Tensors& targets, bool with_targets, const ItemCount& items);

  comm::Communicator& world_;
  const TrainerOptions options_;
  std::vector<pipeline::LayerProfile> profile_;  // on every rank that of rank 0; empty when nothing asked for it
  plan::Schedule train_schedule_, eval_schedule_;
  plan::Boundaries boundaries_;
  MeshGroups groups_;
  std::vector<std::unique_ptr<pipeline::Stage>> stages_;
  std::vector<model::Parameter> parameters_;
  std::vector<size_t> reducer_stage_;  // by stage: its position in the reducer
  std::optional<DataParallelReducer> reducer_;   // or, sharding gradients or parameters:
  std::vector<plan::LayerUse> train_uses_, eval_uses_;
  LayerShards* layer_shards_ = nullptr;          // shards_
  BucketShards* bucket_shards_ = nullptr;        // shards_, sharding the optimizer's state
  std::unique_ptr<ParameterShards> shards_;
  std::optional<Optimizer> optimizer_;
  LossScaler scaler_;
  std::optional<pipeline::Executor> executor_;
  int64_t updates_ = 0;
};

}  // namespace penstock::train
