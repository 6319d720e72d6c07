#pragma once
// What one rank has of the layers that several share, and does with them. Private to src/model.
#include <memory>
#include <string>
#include <vector>

#include "model/layer.h"
#include "model/tensor_ranks.h"
#include "model/transformer_config.h"
#include "plan/tensor_part.h"

namespace penstock::model {

// Note [Layers that ranks share]
// The hidden state is whole, and the same, on every rank. Products whose rows are divided read it (enter()) and give each rank its own heads, or its own part of the
// feed-forward width; the product after them has this rank's columns, and its results are summed (leave()): two sums a block. Tables of tokens are divided by tokens: rows()
// sums what one rank knows with zeros of the others, logits() gathers. What enters is one tensor, so a block's backward pass has two sums, too.
class LayerShare {
 public:
  // `ranks`: null when this rank has the layers to itself. Throws Error kInvalidArgument where they cannot be divided (plan::tensor_part).
  LayerShare(const TransformerConfig& config, const TensorRanks* ranks);

  [[nodiscard]] const plan::TensorPart& part() const { return part_; }
  // Of this rank's heads.
  [[nodiscard]] kernels::AttentionShape attention() const { return {part_.heads.size(), part_.kv_heads.size(), head_size_}; }

  [[nodiscard]] at::Tensor enter(const at::Tensor& x) const { return ranks_ == nullptr ? x : ranks_->share(x); }
  // base + x · Wᵀ + b, of which x and W have this rank's columns only, and base and b are whole; undefined b: none.
  [[nodiscard]] at::Tensor leave(const at::Tensor& base, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const kernels::LinearOptions& options) const;
  // Rows of a table by token ids, of which this rank has part().vocab.
  [[nodiscard]] at::Tensor rows(const at::Tensor& table, const at::Tensor& ids, const kernels::LinearOptions& options) const;
  // x · Wᵀ: [..., V], or of this rank's tokens only, as TensorRanks::logits() says.
  [[nodiscard]] at::Tensor logits(const at::Tensor& x, const at::Tensor& table, const kernels::LinearOptions& options) const;

 private:
  const TensorRanks* ranks_;
  const int64_t head_size_;
  const plan::TensorPart part_;
  const std::vector<int64_t> vocab_offsets_;
};

using SharePtr = std::shared_ptr<const LayerShare>;

// A table of tokens, of which this rank has part().vocab.
[[nodiscard]] Parameter table_of(const std::string& name, const at::Tensor& table, const TransformerConfig& config, const LayerShare& share);

// The rows `own` of the `whole` ones that a stored tensor has, as rows of the parameter from `begin` on.
[[nodiscard]] StoredRows rows_of(std::string name, int64_t begin, plan::Range own, int64_t whole, bool transposed = false);
// All its rows, and the columns `own` of `whole`.
[[nodiscard]] StoredRows columns_of(std::string name, int64_t num_rows, plan::Range own, int64_t whole, bool transposed = false);

}  // namespace penstock::model
