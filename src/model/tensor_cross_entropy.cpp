#include "model/tensor_cross_entropy.h"

#include "base/error.h"

namespace penstock::model {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SharedCrossEntropy : torch::autograd::Function<SharedCrossEntropy> {
  static Tensor forward(AutogradContext* ctx, const Tensor& logits, const Tensor& targets, int64_t first_token, int64_t ranks) {
    const auto& group = *reinterpret_cast<const TensorRanks*>(ranks);
    const Tensor rows = logits.reshape({-1, logits.size(-1)}), flat = targets.reshape({-1});
    Tensor top = rows.amax(-1);
    group.max_in_place(top);
    Tensor gradient = (rows - top.unsqueeze(1)).exp();

    const Tensor places = flat - first_token;
    const Tensor here = at::logical_and(places >= 0, places < rows.size(1)).to(at::kFloat);
    const Tensor index = places.clamp(0, rows.size(1) - 1).unsqueeze(1);
    // Of each row: the sum of its exponentials, and the logit of its target, which one rank has.
    Tensor sums = at::stack({gradient.sum(-1), rows.gather(1, index).squeeze(1) * here});
    group.sum_in_place(sums);

    const Tensor counted = (flat >= 0).to(at::kFloat);
    gradient.div_(sums[0].unsqueeze(1));
    gradient.scatter_add_(1, index, -here.unsqueeze(1));
    gradient.mul_(counted.unsqueeze(1));
    ctx->save_for_backward({gradient.view(logits.sizes())});
    return ((top + sums[0].log() - sums[1]) * counted).sum(at::kDouble).to(at::kFloat);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {ctx->get_saved_variables()[0] * grads[0], Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor cross_entropy_sum(const Tensor& logits, const Tensor& targets, int64_t first_token, const TensorRanks& ranks) {
  PENSTOCK_CHECK(logits.numel() == targets.numel() * logits.size(-1), "cross_entropy: {} logits for {} targets and {} tokens of this rank", logits.numel(), targets.numel(),
                 logits.size(-1));
  return SharedCrossEntropy::apply(logits, targets, first_token, reinterpret_cast<int64_t>(&ranks));
}

}  // namespace penstock::model
