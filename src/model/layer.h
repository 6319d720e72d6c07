#pragma once
// What a model is made of: layers, and the lazily built list of them that a pipeline cuts into stages.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "kernels/linear.h"

namespace penstock::model {

class KvCache;

using Tensors = std::vector<at::Tensor>;

// What a forward pass knows beside its input.
struct ForwardContext {
  kernels::LinearOptions linear;  // for kernels::linear()
  // Serving: the rows of the input belong to these sequences, in this order; their keys and values are in `cache`.
  // Training: both empty; every row of the batch is a whole sequence from position 0.
  std::span<const kernels::SequenceRows> sequences;
  KvCache* cache = nullptr;
  // Of `sequences`, where the layers are on a device that is not the CPU; null: they are on the CPU.
  kernels::StepRows* step_rows = nullptr;
  // Rows of the input that the last layer turns into logits (int64 [R]); undefined = all.
  at::Tensor output_rows;
};

// The part of a stored tensor that this rank has, where several share a layer: along one dim of the parameter, from `first` on.
struct StoredCut {
  int dim = 0;  // 0 = rows, 1 = columns
  int64_t first = 0;
  int64_t whole = 0;  // of the stored tensor along this dim; 0 = not cut
};

// A run of rows of a parameter that has a name of its own in checkpoints.
struct StoredRows {
  std::string name;  // as in the Hugging Face checkpoint, e.g. "model.layers.0.self_attn.q_proj.weight"
  int64_t begin = 0;
  int64_t end = 0;
  bool transposed = false;  // the checkpoint holds these rows as columns
  StoredCut cut = {};
};

// What reads a parameter: what nothing else reads may be held in another form while serving (model/held_weights.h).
enum class WeightUse {
  kOther,
  kProduct,  // kernels::linear() as its weight
  kTable,    // kernels::embedding(), kernels::linear(), or both
};

struct Parameter {
  std::string name;                // unique in the model
  at::Tensor value;                // a leaf, float32, [rows, ...]; `value.grad()` is its gradient
  std::vector<StoredRows> stored;  // cover all rows, in order
  double init_std = 0;             // normal with this deviation; 0 = all init_constant
  bool decay = true;               // weight decay applies
  double init_constant = 1;
  WeightUse use = WeightUse::kOther;

  // This rank has a part of it only, others the rest.
  [[nodiscard]] bool is_cut() const { return !stored.empty() && stored.front().cut.whole > 0; }
};

// One layer. Users derive from this to train models of their own.
//
// Threads: one thread calls forward and backward of a layer.
// Tensors: what forward returns travels to the next layer, maybe in another process: contiguous, any number, any dtype;
//          gradients travel back for what requires them.
class Layer {
 public:
  virtual ~Layer() = default;
  [[nodiscard]] virtual Tensors forward(const Tensors& inputs, const ForwardContext& context) = 0;
  // In the order in which forward uses them. The handles share storage with the layer.
  [[nodiscard]] virtual std::vector<Parameter> parameters() = 0;
};

// Weights that layers of one rank have in common (a tied embedding and head), by parameter name.
class SharedWeights {
 public:
  // The weight of this name: made by `make` when it is asked for first, the same tensor ever after.
  at::Tensor get(const std::string& name, const std::function<at::Tensor()>& make) {
    at::Tensor& weight = weights_[name];
    if (!weight.defined()) weight = make();
    return weight;
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, weight] : weights_) all.push_back(name);
    return all;
  }

 private:
  std::map<std::string, at::Tensor> weights_;
};

// A layer that is not built yet: a stage builds only its own.
struct LayerSpec {
  std::string name;            // "model.layers.3"
  std::string type;            // "DecoderBlock"
  int64_t num_parameters = 0;  // its share of the model, for partitioning
  // Allocates the parameters without values. Shared ones come from SharedWeights.
  std::function<std::unique_ptr<Layer>(SharedWeights&)> build;
  // Names of parameters that it shares with other layers. Where those are on other ranks each has a copy: equal at the start, as initialize()
  // depends on the name alone, and equal ever after, as the gradients of all copies are summed.
  std::vector<std::string> tied = {};
};

// Sets a parameter to its initial value, drawn from (seed, parameter name) alone: any partition gives the same model. A cut one becomes this rank's part of the
// whole one's.
void initialize(Parameter& parameter, uint64_t seed);

}  // namespace penstock::model
