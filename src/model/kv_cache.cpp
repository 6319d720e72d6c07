#include "model/kv_cache.h"

#include "base/error.h"

namespace penstock::model {

KvCache::KvCache(const Shape& shape, int64_t num_pages, const at::Device& device) : shape_(shape) {
  const auto options = at::TensorOptions(device).dtype(shape.bf16 ? at::kBFloat16 : at::kFloat);
  for (int i = 0; i < shape.num_layers; ++i) {
    keys_.push_back(at::empty({num_pages, shape.kv_heads, shape.head_size, kernels::kPageTokens}, options));
    values_.push_back(at::empty({num_pages, shape.kv_heads, kernels::kPageTokens, shape.head_size}, options));
  }
}

size_t KvCache::index(int layer) const {
  PENSTOCK_CHECK(layer >= shape_.first_layer && layer < shape_.first_layer + shape_.num_layers, "layer {} is not in the cache of layers {} to {}",
                 layer, shape_.first_layer, shape_.first_layer + shape_.num_layers - 1);
  return static_cast<size_t>(layer - shape_.first_layer);
}

at::Tensor& KvCache::keys(int layer) { return keys_[index(layer)]; }
at::Tensor& KvCache::values(int layer) { return values_[index(layer)]; }

}  // namespace penstock::model
