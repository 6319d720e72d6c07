#pragma once
// Gradients, and optionally weights, of which each replica keeps its part only (ZeRO stages 2 and 3).
#include <memory>
#include <vector>

#include "plan/layer_uses.h"
#include "train/data_parallel_reducer.h"
#include "train/parameter_shards.h"

namespace penstock::train {

// The parameters that a layer adds to those of the layers before it on this rank form a unit: one flat array, cut into as many equal parts as there are
// replicas. A unit's gradients are reduce-scattered as soon as the layer's backward pass of a micro-batch is over, while the layers below still run, and
// added to the replica's part; the whole gradients are then free. So memory is that of the parts, and every micro-batch is reduced: gradients kept
// whole over a step's micro-batches would save that traffic, and none of the memory that this is for.
//
// Stage 2: the weights are whole everywhere; after an update the parts are gathered.
// Stage 3: weights are gathered for each use, the next use's while the present one computes, and freed after it, unless the next use needs them again.
// In a pipeline the uses are those of the schedule's actions, layer by layer, forward and backward.
//
// Bytes at rest, for N replicas and P parameters, with AdamW: 4·P + 12·P/N (stage 2), 16·P/N (stage 3), instead of 16·P. On top come, within a step, two
// units' weights (stage 3), one layer's gradients as autograd makes them, and up to two reductions under way; with schedules that split backward passes, a
// stage's gradients of one micro-batch.
//
// Order: collectives follow the list of uses, which is the same on every replica, whatever branches of the model it takes. Parameters without a
// gradient add zeros.
// Errors: those of the communicator.
class LayerShards final : public ParameterShards {
 public:
  // What a layer on this rank uses.
  struct Layer {
    int index = 0;  // in the model
    std::vector<at::Tensor> values;
  };
  // `layers` by rising index; together they use all parameters. `shard_values`: stage 3. `alone`: parameters that get units of their own, so that they are
  // cut alike wherever else they are.
  LayerShards(std::vector<model::Parameter>& parameters, const std::vector<Layer>& layers, comm::Communicator& replicas, bool shard_values,
              const std::vector<size_t>& alone);
  ~LayerShards() override;

  [[nodiscard]] Range range(size_t i, int replica) const override;
  [[nodiscard]] at::Tensor values(size_t i) const override;
  [[nodiscard]] at::Tensor gradients(size_t i) const override;
  [[nodiscard]] at::Tensor summed_gradient(size_t i) const override { return gradients(i); }
  [[nodiscard]] bool gradients_are_whole() const override { return false; }
  void initialize(const Initializer& set) override;
  void share_updated(Deadline deadline) override;
  [[nodiscard]] at::Tensor whole_value(size_t i, Deadline deadline) const override;
  void set_value(size_t i, const at::Tensor& whole) override;

  // A step or an evaluation: the uses, each told by before() and after(), in this order; kWeightGrads by after() alone. `timeout` of each wait.
  // With gradients in `uses` the parts start from zero.
  void begin(const std::vector<plan::LayerUse>& uses, seconds timeout);
  void before(int first_layer, int last_layer);
  void after(int first_layer, int last_layer);
  // Does all that is left of the uses without computing: for a replica that has no batch.
  void pass();
  // Blocks until everything is reduced.
  [[nodiscard]] std::vector<ReductionRecord> finish();
  // Whether parameter i got a gradient since begin().
  [[nodiscard]] bool has_gradient(size_t i) const { return has_gradient_[i]; }

 private:
  struct Unit;
  struct Reduction;
  struct Place {
    size_t unit = 0;
    int64_t offset = 0;  // elements, in the unit
  };
  void make_unit(const std::vector<size_t>& parameters, int layer);
  void move_values(Unit& unit);
  [[nodiscard]] const plan::LayerUse& use(int first_layer, int last_layer) const;
  [[nodiscard]] const plan::LayerUse* next_reader(size_t from) const;
  [[nodiscard]] std::vector<size_t> units_of(const plan::LayerUse& use) const;
  void start_gather(Unit& unit) const;
  void finish_gather(Unit& unit, Deadline deadline) const;
  void reduce(size_t unit);
  [[nodiscard]] bool is_added_to_late(size_t unit) const;
  void finish_oldest_reduction();

  const bool shard_values_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::vector<Place> places_;                    // by parameter
  std::vector<std::vector<size_t>> layer_units_;  // by layer of the model: those it uses
  std::vector<bool> has_gradient_;
  const std::vector<plan::LayerUse>* uses_ = nullptr;
  size_t next_ = 0;  // use
  seconds timeout_{60};
  std::vector<Reduction> reductions_;  // under way, oldest first
  std::vector<ReductionRecord> records_;
};

}  // namespace penstock::train
