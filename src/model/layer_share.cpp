#include "model/layer_share.h"

#include "kernels/embedding.h"
#include "kernels/linear.h"
#include "model/new_parameter.h"

namespace penstock::model {
namespace {

plan::TensorPart part_of(const TransformerConfig& config, const TensorRanks* ranks) {
  return plan::tensor_part(config.tensor_sizes(), ranks == nullptr ? 0 : ranks->rank(), ranks == nullptr ? 1 : ranks->size()).value();
}

}  // namespace

LayerShare::LayerShare(const TransformerConfig& config, const TensorRanks* ranks)
    : ranks_(ranks),
      head_size_(config.head_size),
      part_(part_of(config, ranks)),
      vocab_offsets_(plan::vocab_offsets(config.tensor_sizes(), ranks == nullptr ? 1 : ranks->size())) {}

at::Tensor LayerShare::leave(const at::Tensor& base, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const kernels::LinearOptions& options) const {
  if (ranks_ == nullptr) return kernels::add_linear(base, x, weight, bias, options);
  const at::Tensor sum = ranks_->sum(kernels::linear(x, weight, options));
  return base + (bias.defined() ? sum + bias : sum);
}

at::Tensor LayerShare::rows(const at::Tensor& table, const at::Tensor& ids, const kernels::LinearOptions& options) const {
  if (ranks_ == nullptr) return kernels::embedding(table, ids, options);
  const at::Tensor places = ids - part_.vocab.begin;
  const at::Tensor elsewhere = at::logical_or(places < 0, places >= part_.vocab.size());
  return ranks_->sum(kernels::embedding(table, places.masked_fill(elsewhere, 0), options).masked_fill(elsewhere.unsqueeze(-1), 0));
}

at::Tensor LayerShare::logits(const at::Tensor& x, const at::Tensor& table, const kernels::LinearOptions& options) const {
  if (ranks_ == nullptr) return kernels::linear(x, table, options);
  const at::Tensor own = kernels::linear(ranks_->share(x), table, options);
  return ranks_->logits() == SharedLogits::kOwn ? own : ranks_->gather(own, vocab_offsets_);
}

Parameter table_of(const std::string& name, const at::Tensor& table, const TransformerConfig& config, const LayerShare& share) {
  return used_as(WeightUse::kTable, {name, table, {rows_of(name, 0, share.part().vocab, config.vocab_size)}, config.initializer_range, true});
}

StoredRows rows_of(std::string name, int64_t begin, plan::Range own, int64_t whole, bool transposed) {
  return {std::move(name), begin, begin + own.size(), transposed, own.size() < whole ? StoredCut{0, own.begin, whole} : StoredCut{}};
}

StoredRows columns_of(std::string name, int64_t num_rows, plan::Range own, int64_t whole, bool transposed) {
  return {std::move(name), 0, num_rows, transposed, own.size() < whole ? StoredCut{1, own.begin, whole} : StoredCut{}};
}

}  // namespace penstock::model
