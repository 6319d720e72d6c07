#include "model/kv_cache.h"

#include "base/error.h"

namespace penstock::model {

KvCache::KvCache(const Shape& shape) : shape_(shape) {
  for (int i = 0; i < shape.num_layers; ++i) {
    keys_.push_back(at::empty({shape.slots, shape.kv_heads, shape.max_length, shape.head_size}, at::kFloat));
    values_.push_back(at::empty_like(keys_.back()));
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
