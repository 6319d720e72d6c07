#include "model/tensor_ranks.h"

#include "base/error.h"

namespace penstock::model {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const TensorRanks& ranks_of(AutogradContext* ctx) { return *reinterpret_cast<const TensorRanks*>(ctx->saved_data["ranks"].toInt()); }

struct ShareFunction : torch::autograd::Function<ShareFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t ranks) {
    ctx->saved_data["ranks"] = ranks;
    return x.view_as(x);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    Tensor sum = grads[0].contiguous().clone();
    ranks_of(ctx).sum_in_place(sum);
    return {sum, Tensor()};
  }
};

struct SumFunction : torch::autograd::Function<SumFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t ranks) {
    ctx->saved_data["ranks"] = ranks;
    Tensor sum = x.contiguous().clone();
    ranks_of(ctx).sum_in_place(sum);
    return sum;
  }
  static variable_list backward(AutogradContext* /*ctx*/, const variable_list& grads) { return {grads[0], Tensor()}; }
};

// Flat, the ranks' parts one after another.
Tensor gathered(const Tensor& x, std::span<const int64_t> offsets, comm::Communicator& group, seconds timeout) {
  const int64_t columns = x.size(-1), rows = columns == 0 ? 0 : x.numel() / columns;
  auto shape = x.sizes().vec();
  shape.back() = offsets.back();
  if (rows == 0) return at::empty(shape, x.options());
  Tensor flat = at::empty({rows * offsets.back()}, x.options());
  std::vector<int64_t> places;
  for (const int64_t offset : offsets) places.push_back(rows * offset);
  const auto own = static_cast<size_t>(group.rank());
  flat.narrow(0, places[own], places[own + 1] - places[own]).copy_(x.reshape({-1}));
  group.all_gather(flat, places)->wait(Deadline::after(timeout));
  if (rows == 1) return flat.view(shape);
  std::vector<Tensor> parts;
  for (size_t r = 0; r + 1 < offsets.size(); ++r) parts.push_back(flat.narrow(0, places[r], places[r + 1] - places[r]).view({rows, offsets[r + 1] - offsets[r]}));
  return at::cat(parts, 1).view(shape);
}

struct GatherFunction : torch::autograd::Function<GatherFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t ranks, const std::vector<int64_t>& offsets) {
    const auto& group = *reinterpret_cast<const TensorRanks*>(ranks);
    const auto own = static_cast<size_t>(group.rank());
    ctx->saved_data["first"] = offsets[own];
    ctx->saved_data["count"] = offsets[own + 1] - offsets[own];
    return gathered(x, offsets, group.group(), group.timeout());
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {grads[0].narrow(-1, ctx->saved_data["first"].toInt(), ctx->saved_data["count"].toInt()).contiguous(), Tensor(), Tensor()};
  }
};

bool wants_gradient(const Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

}  // namespace

void TensorRanks::sum_in_place(Tensor& x) const {
  if (x.numel() > 0) group_.all_reduce(x, comm::Reduce::kSum)->wait(Deadline::after(timeout_));
}

void TensorRanks::max_in_place(Tensor& x) const {
  if (x.numel() > 0) group_.all_reduce(x, comm::Reduce::kMax)->wait(Deadline::after(timeout_));
}

Tensor TensorRanks::share(const Tensor& x) const { return wants_gradient(x) ? ShareFunction::apply(x, reinterpret_cast<int64_t>(this)) : x; }

Tensor TensorRanks::sum(const Tensor& x) const {
  if (wants_gradient(x)) return SumFunction::apply(x, reinterpret_cast<int64_t>(this));
  Tensor sum = x.contiguous();
  sum_in_place(sum);
  return sum;
}

Tensor TensorRanks::gather(const Tensor& x, std::span<const int64_t> offsets) const {
  PENSTOCK_CHECK(static_cast<int>(offsets.size()) == size() + 1 && x.size(-1) == offsets[static_cast<size_t>(rank()) + 1] - offsets[static_cast<size_t>(rank())],
                 "{} columns on tensor rank {}", x.size(-1), rank());
  if (wants_gradient(x)) return GatherFunction::apply(x, reinterpret_cast<int64_t>(this), std::vector<int64_t>(offsets.begin(), offsets.end()));
  return gathered(x, offsets, group_, timeout_);
}

}  // namespace penstock::model
