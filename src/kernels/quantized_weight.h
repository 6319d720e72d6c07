#pragma once
// A weight matrix in blocks of small integers, laid out for products (kernels/quantized_product.h). Torch-free.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/quantized_blocks.h"

namespace penstock::kernels {

// Rows that lie interleaved, so that one register holds the same four columns of all of them.
inline constexpr int64_t kTileRows = 16;

// Consecutive rows of one format, in tiles of 16 rows. A tile is its blocks one after another; a block of a tile is, for each group of 4 columns,
// 4 bytes of each row: kInt8 the signed values of 8 groups (512 bytes); 4 bits the values as in GGUF's block, of the groups g (low halves) and
// g + 4 (high halves) of 4 (256 bytes). Scales and minima are halves, 16 for each block of a tile. Rows that fill up the last tile are zero.
struct QuantizedPart {
  BlockFormat format = BlockFormat::kInt8;
  int64_t first_row = 0;
  int64_t rows = 0;
  uint8_t* quants = nullptr;
  uint16_t* scales = nullptr;
  uint16_t* minima = nullptr;  // kInt4Min only

  [[nodiscard]] int64_t tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  // Bytes of `quants` for one block of a tile.
  [[nodiscard]] int64_t tile_block_bytes() const { return kTileRows * (format == BlockFormat::kInt8 ? kBlockValues : kBlockValues / 2); }
};

// W [rows, columns]. Its rows may be of several formats, such as q, k and v of a GGUF file in one matrix.
//
// Threads: different rows may be set by several threads at once; after that, any may read.
class QuantizedWeight {
 public:
  struct Rows {
    BlockFormat format = BlockFormat::kInt8;
    int64_t count = 0;
  };
  // All zero until set. REQUIRES: at least one row and column.
  QuantizedWeight(int64_t columns, std::span<const Rows> parts);
  QuantizedWeight(int64_t columns, BlockFormat format, int64_t rows);
  QuantizedWeight(QuantizedWeight&&) noexcept = default;
  QuantizedWeight& operator=(QuantizedWeight&&) noexcept = default;

  // Rows [first, first + count) from values [count, columns], rounded to the format of each row.
  void set_values(int64_t first, int64_t count, const float* values);
  // The same from rows of blocks as quantize_row() makes them, taken without loss. REQUIRES: all these rows are of `format`.
  void set_blocks(BlockFormat format, int64_t first, int64_t count, const std::byte* blocks);
  // What a row stands for: [columns].
  void get_values(int64_t row, float* values) const;

  [[nodiscard]] int64_t rows() const { return rows_; }
  [[nodiscard]] int64_t columns() const { return columns_; }
  [[nodiscard]] int64_t blocks() const { return row_blocks(columns_); }  // of a row
  [[nodiscard]] int64_t bytes() const { return bytes_; }                 // of memory, which a product with it reads once
  [[nodiscard]] std::span<const QuantizedPart> parts() const { return parts_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  const QuantizedPart& part_of(int64_t row) const;

  int64_t rows_ = 0;
  int64_t columns_;
  int64_t bytes_ = 0;
  std::unique_ptr<std::byte[], Free> memory_;
  std::vector<QuantizedPart> parts_;
};

}  // namespace penstock::kernels
