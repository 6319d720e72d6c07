#pragma once
// Keys and values of the sequences that a stage is serving.
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace penstock::model {

// Pages of kernels::kPageTokens positions, for the layers [first_layer, first_layer + num_layers) of a stage. Who has which page is decided
// elsewhere. The memory is reserved at once; that of the CPU the system gives when it is written.
//
// Threads: owned by the thread that runs the stage.
class KvCache {
 public:
  struct Shape {
    int first_layer = 0;
    int num_layers = 0;
    int64_t kv_heads = 0;
    int64_t head_size = 0;
    bool bf16 = false;  // keys and values are rounded to bfloat16; else float32

    // Of a page of all its layers: keys and values.
    [[nodiscard]] int64_t page_bytes() const { return 2 * (bf16 ? 2 : 4) * num_layers * kv_heads * kernels::kPageTokens * head_size; }
  };
  KvCache(const Shape& shape, int64_t num_pages, const at::Device& device = at::kCPU);

  // Of the layer with this number in the whole model, as kernels::cached_attention() wants them.
  [[nodiscard]] at::Tensor& keys(int layer);    // [pages, G, K, 16]
  [[nodiscard]] at::Tensor& values(int layer);  // [pages, G, 16, K]
  [[nodiscard]] const Shape& shape() const { return shape_; }

 private:
  size_t index(int layer) const;
  Shape shape_;
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace penstock::model
