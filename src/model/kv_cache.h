#pragma once
// Keys and values of the sequences that a stage is serving.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace penstock::model {

// One slot a sequence, each with room for max_length positions, for the layers [first_layer, first_layer + num_layers) of a stage.
// The memory is reserved at once; pages are touched when written.
//
// Threads: owned by the thread that runs the stage.
class KvCache {
 public:
  struct Shape {
    int first_layer = 0;
    int num_layers = 0;
    int64_t slots = 0;
    int64_t kv_heads = 0;
    int64_t max_length = 0;
    int64_t head_size = 0;

    // Keys and values, float32.
    [[nodiscard]] int64_t bytes() const { return 2 * 4 * num_layers * slots * kv_heads * max_length * head_size; }
  };
  explicit KvCache(const Shape& shape);

  // [slots, G, max_length, K] of the layer with this number in the whole model.
  [[nodiscard]] at::Tensor& keys(int layer);
  [[nodiscard]] at::Tensor& values(int layer);
  [[nodiscard]] const Shape& shape() const { return shape_; }

 private:
  size_t index(int layer) const;
  Shape shape_;
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace penstock::model
