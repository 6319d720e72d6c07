#pragma once
// Grouped-query causal attention (Ainslie et al. 2023, arXiv 2305.13245) with rotary positions.
//
// Legend: B sequences, T positions, H query heads, G key/value heads (H divisible by G), K head size.
// A row of `qkv` holds H query heads, then G key heads, then G value heads: (H + 2G)·K elements.
#include <cstdint>
#include <span>

#include "kernels/compute.h"
#include "kernels/rotary.h"
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

struct AttentionShape {
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // G
  int64_t head_size = 0; // K, even

  [[nodiscard]] int64_t row() const { return (heads + 2 * kv_heads) * head_size; }
};

// Training. qkv [B, T, (H+2G)·K] float32 -> [B, T, H·K]. Position t of every sequence attends to positions 0 … t; scores are scaled by
// 1/sqrt(K). Keeps the rotated qkv and one number per row and head for the backward pass, which computes the scores again
// (Dao et al. 2022, arXiv 2205.14135). Parallel over sequences and key heads. `rotary` must outlive the backward pass.
// `starts` [B, T] int32: where in its row the document of position t begins, never falling, in 0 … t. Then t attends to starts[t] … t only, and its
// rotary position is t − starts[t]. Scores across documents are mostly not computed. Undefined: a row is one document.
// `compute`: of a GPU, which takes LibTorch's fused kernels where they fit; the CPU computes in float32.
Tensor causal_attention(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, const Tensor& starts = {}, Compute compute = Compute::kFp32);

// The same by plain LibTorch operations.
Tensor causal_attention_reference(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, const Tensor& starts = {});

// Positions of one page of the KV cache.
inline constexpr int kPageTokens = 16;

// `count` consecutive rows of a serving step: positions start … start + count − 1 of a sequence.
struct SequenceRows {
  std::span<const int32_t> pages;  // of its positions 0 …, 16 each; borrowed
  int start = 0;
  int count = 0;
};

class StepRows;

// Serving. qkv [N, (H+2G)·K] float32, the rows of `sequences` one after another; they are rotated, in place on the CPU, and the keys and values of all
// of them are written into their pages before any page is read. k_cache [pages, G, K, 16]: the keys of 16 positions side by side, so that one
// vector register takes an element of all of them; v_cache [pages, G, 16, K]. -> [N, H·K]. No gradients. On the CPU parallel over rows, sequences and heads.
// `rows`: of these sequences, on the tensors' device (kernels/step_rows.h), where that is not the CPU; null: the CPU's kernel computes.
Tensor cached_attention(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, std::span<const SequenceRows> sequences,
                        Tensor& k_cache, Tensor& v_cache, StepRows* rows = nullptr);

}  // namespace penstock::kernels
