#include "pipeline/microbatch.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::pipeline {
namespace {

std::string shape_of(const at::Tensor& t) { return fmt::format("[{}]", fmt::join(t.sizes().begin(), t.sizes().end(), ", ")); }

// The dim to cut, checked; negative ones count from the end.
int64_t checked_dim(const at::Tensor& t, size_t index, int dim, int count) {
  const int64_t positive = dim < 0 ? dim + t.dim() : dim;
  if (positive < 0 || positive >= t.dim()) {
    throw error(Code::kInvalidArgument, "micro-batches: tensor {} has shape {}, no dim {} to cut", index, shape_of(t), dim);
  }
  if (t.size(positive) < count) {
    throw error(Code::kInvalidArgument, "micro-batches: tensor {} of shape {} cannot be cut into {} along dim {}; use at most {} micro-batches", index,
                shape_of(t), count, positive, t.size(positive));
  }
  return positive;
}

}  // namespace

std::vector<model::Tensors> split(const model::Tensors& tensors, int count, std::span<const SplitRule> rules) {
  if (count < 1) throw error(Code::kInvalidArgument, "micro-batches: expected at least 1, found {}", count);
  std::vector<model::Tensors> parts(static_cast<size_t>(count));
  int64_t length = -1;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const SplitRule rule = i < rules.size() ? rules[i] : SplitRule{};
    if (rule.replicate) {
      for (auto& part : parts) part.push_back(tensors[i]);
      continue;
    }
    const int64_t dim = checked_dim(tensors[i], i, rule.dim, count);
    if (length >= 0 && tensors[i].size(dim) != length) {
      throw error(Code::kInvalidArgument, "micro-batches: tensor {} of shape {} has {} rows along dim {}, the others have {}", i, shape_of(tensors[i]),
                  tensors[i].size(dim), dim, length);
    }
    length = tensors[i].size(dim);
    const auto pieces = at::tensor_split(tensors[i], int64_t{count}, dim);
    for (size_t part = 0; part < parts.size(); ++part) parts[part].push_back(pieces[part]);
  }
  return parts;
}

model::Tensors merge_outputs(std::span<const model::Tensors> parts, std::span<const MergeRule> rules) {
  if (parts.empty()) return {};
  model::Tensors merged;
  for (size_t i = 0; i < parts.front().size(); ++i) {
    std::vector<at::Tensor> pieces;
    for (const model::Tensors& part : parts) {
      if (part.size() != parts.front().size()) {
        throw error(Code::kInvalidArgument, "outputs: a micro-batch has {} tensors, the first has {}", part.size(), parts.front().size());
      }
      pieces.push_back(part[i]);
    }
    const MergeRule rule = i < rules.size() ? rules[i] : MergeRule{};
    if (!rule.reduce) {
      merged.push_back(at::cat(pieces, rule.dim));
      continue;
    }
    at::Tensor folded = pieces.front();
    for (size_t p = 1; p < pieces.size(); ++p) folded = rule.reduce(folded, pieces[p]);
    merged.push_back(folded);
  }
  return merged;
}

std::vector<Microbatch> on_device(std::span<const Microbatch> microbatches, at::Device device) {
  std::vector<Microbatch> moved(microbatches.begin(), microbatches.end());
  for (Microbatch& microbatch : moved) {
    for (at::Tensor& t : microbatch.inputs) t = t.to(device);
    for (at::Tensor& t : microbatch.targets) t = t.to(device);
  }
  return moved;
}

std::vector<Microbatch> split_batch(const model::Tensors& inputs, const model::Tensors& targets, int count, bool with_inputs, bool with_targets) {
  std::vector<Microbatch> microbatches(static_cast<size_t>(count));
  const auto deal_out = [&](const model::Tensors& tensors, model::Tensors Microbatch::*part) {
    const bool has_rows = !tensors.empty() && tensors[0].dim() > 0;
    const int rows = has_rows ? static_cast<int>(std::min<int64_t>(count, tensors[0].size(0))) : count;
    const auto parts = split(tensors, rows);
    for (int i = 0; i < count; ++i) {
      Microbatch& microbatch = microbatches[static_cast<size_t>(i)];
      microbatch.*part = parts[i < rows ? static_cast<size_t>(i) : 0];
      microbatch.counts = i < rows;
    }
  };
  if (with_inputs) deal_out(inputs, &Microbatch::inputs);
  if (with_targets) deal_out(targets, &Microbatch::targets);
  return microbatches;
}

}  // namespace penstock::pipeline
