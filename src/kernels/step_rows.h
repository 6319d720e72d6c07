#pragma once
// The rows of a serving step as tensors of a device: what attention over pages needs to know there. Sent once a step, in one piece, and used by all layers.
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/paged_attention.h"

namespace penstock::kernels {

// Throws Bug unless the pages of all sequences are among num_pages and hold all their rows. -> the number of rows.
int64_t check_sequences(std::span<const SequenceRows> sequences, int64_t num_pages);

// S sequences of a step that have C rows each, and whose keys are read from P pages each, which is L = 16·P positions; those of a shorter sequence are
// padded with a page of its own. Indices are int64.
struct RowGroup {
  int64_t sequences = 0;  // S
  int64_t rows = 0;       // C, of each
  int64_t pages = 0;      // P
  int64_t rows_at_once = 0;  // of the C: so many keep the scores of all heads within the bound
  Tensor index;   // [S·C]: the rows' places in the step; undefined: all rows of the step, in order
  Tensor table;   // [S, P]: page numbers
  Tensor keys;    // [S·G·K·P]: rows of the keys seen as [pages·G·K, 16], in the order [S, G, K, P]
  Tensor values;  // [S·G·P]: rows of the values seen as [pages·G, 16·K], in the order [S, G, P]
  Tensor hidden;  // [S, 1, 1, C, L] bool: positions behind the row's own
  Tensor beyond;  // [S, 1, L, 1] bool: positions behind the sequence's last row, which may hold anything

  [[nodiscard]] int64_t positions() const { return pages * kPageTokens; }
};

// Threads: owned by the one that computes.
class StepRows {
 public:
  // Elements that scores and gathered pages of a group may have, unless a single row needs more.
  static constexpr int64_t kMostElements = int64_t{1} << 25;

  // What computes where our own CUDA kernels take such heads on such a device; where they do not, it is LibTorch.
  enum class By { kOwnKernels, kLibTorch };

  // `shape`: of this rank's heads, in all layers. A smaller `most_elements`, and kLibTorch, are for tests and measurements.
  StepRows(const AttentionShape& shape, const at::Device& device, int64_t most_elements = kMostElements, By by = By::kOwnKernels)
      : shape_(shape), device_(device), most_elements_(most_elements), by_(by) {}

  // Of the step that comes; num_pages: of the cache. Throws Bug as check_sequences().
  void begin(std::span<const SequenceRows> sequences, int64_t num_pages);

  [[nodiscard]] int64_t count() const { return positions_.size(0); }  // N
  [[nodiscard]] const Tensor& positions() const { return positions_; }  // [N] int64: of each row in its sequence
  // Of our own kernels: all that they need. Null where LibTorch computes, which needs what follows; else that is empty.
  [[nodiscard]] const cuda::StepTables* own_tables() const { return own_tables_ ? &*own_tables_ : nullptr; }
  [[nodiscard]] const Tensor& pages() const { return pages_; }          // [N] int64: the number of the page that it belongs to
  [[nodiscard]] const Tensor& lanes() const { return lanes_; }          // [N] int64: and its place in it
  [[nodiscard]] const std::vector<RowGroup>& groups() const { return groups_; }

  // cos and sin of all positions, [max_positions, 2, K/2], on the device from the first call on. `table` must outlive this.
  [[nodiscard]] const Tensor& table(const RotaryTable& table);
  // Of the step's rows, [N, 1, K]: cos twice; −sin, then sin. Made by the step's first call.
  struct Rotation {
    Tensor cos, sin;
  };
  [[nodiscard]] const Rotation& rotation(const RotaryTable& table);

 private:
  void begin_tensors(std::span<const SequenceRows> sequences, int64_t count);
  void complete(RowGroup& group, const Tensor& last) const;

  const AttentionShape shape_;
  const at::Device device_;
  const int64_t most_elements_;
  const By by_;
  std::optional<cuda::StepTables> own_tables_;
  Tensor positions_, pages_, lanes_;
  std::vector<RowGroup> groups_;
  std::map<const RotaryTable*, Tensor> tables_;
  std::map<const RotaryTable*, Rotation> rotations_;
};

}  // namespace penstock::kernels
