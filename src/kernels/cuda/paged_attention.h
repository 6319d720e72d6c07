#pragma once
// Attention over the pages of the KV cache by our own CUDA kernels; attention.h is the door.
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <vector>

#include "kernels/cuda/step_tiles.h"

namespace penstock::kernels::cuda {

// built(), the device is a CUDA one, and heads have at most 256 elements.
[[nodiscard]] bool takes_attention(const AttentionShape& shape, const at::Device& device);

// A step's rows on a GPU, for all its layers: sent in one piece.
//
// Threads: owned by the one that computes.
class StepTables {
 public:
  // REQUIRES: takes_attention(); `sequences` have been checked.
  StepTables(std::span<const SequenceRows> sequences, const AttentionShape& shape, const at::Device& device);

  [[nodiscard]] int64_t rows() const { return static_cast<int64_t>(step_.positions.size()); }  // N
  [[nodiscard]] Tensor positions() const;                                                      // [N] int32: of each row in its sequence

 private:
  friend Tensor paged_attention(const Tensor&, const AttentionShape&, const Tensor&, const StepTables&, Tensor&, Tensor&);
  const StepTiles step_;
  Tensor numbers_;  // int32: tiles, positions, pages of the rows, pages of the sequences
};

// What kernels::cached_attention() says; qkv stays as it is. `rotary` [max positions, 2, K/2]: cos, then sin. Two launches, three where a row sees more than
// kPartPositions positions; more where their partial results would take more than 64 MiB. A row's result depends on that row and its position alone.
[[nodiscard]] Tensor paged_attention(const Tensor& qkv, const AttentionShape& shape, const Tensor& rotary, const StepTables& tables, Tensor& k_cache, Tensor& v_cache);

}  // namespace penstock::kernels::cuda
