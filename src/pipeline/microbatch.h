#pragma once
// A batch in pieces that travel through the pipeline, and their results in one piece again.
#include <functional>
#include <span>
#include <vector>

#include "pipeline/executor.h"

namespace penstock::pipeline {

// What becomes of one tensor of a batch.
struct SplitRule {
  bool replicate = false;  // every micro-batch gets the whole tensor
  int dim = 0;             // else: cut along this one
};

// What becomes of one output of all micro-batches.
struct MergeRule {
  int dim = 0;                                                              // joined along this one
  std::function<at::Tensor(const at::Tensor&, const at::Tensor&)> reduce = {};  // or, where set, folded from the first micro-batch to the last
};

// `count` pieces of each tensor, as torch.tensor_split cuts: sizes differ by at most one, larger pieces first. Views, not copies.
// `rules` are by position; tensors without one are cut along dim 0. kInvalidArgument names the tensor: a rule for a dim that it has not, or a dim
// shorter than `count`; cut tensors must be equally long.
[[nodiscard]] std::vector<model::Tensors> split(const model::Tensors& tensors, int count, std::span<const SplitRule> rules = {});

// The inverse. `parts` are the outputs of each micro-batch, in order, equally many. No parts give no tensors.
[[nodiscard]] model::Tensors merge_outputs(std::span<const model::Tensors> parts, std::span<const MergeRule> rules = {});

// Copies on `device`; what is there already is not copied.
[[nodiscard]] std::vector<Microbatch> on_device(std::span<const Microbatch> microbatches, at::Device device);

// Micro-batches of inputs and targets along dim 0; what a rank does not need (`with_*` false) is left out. Fewer rows than micro-batches: one row
// each, and the first row again, which does not count, in those that are left. REQUIRES: at least one row of what the rank needs.
[[nodiscard]] std::vector<Microbatch> split_batch(const model::Tensors& inputs, const model::Tensors& targets, int count, bool with_inputs,
                                                  bool with_targets);

}  // namespace penstock::pipeline
