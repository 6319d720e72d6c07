#pragma once
// Activations in blocks of int8, made on the fly for products with quantized weights. Private to src/kernels; torch-free.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/cache_lines.h"
#include "kernels/quantized_blocks.h"

namespace penstock::kernels {

// How a kernel takes rows at once. Of each block stand together, interleaved: for each group of 4 columns 4 values of each row; else one row after the other.
struct RowGrouping {
  int count = 0;
  bool interleaved = true;
};
// What it takes of the `left` >= 1 rows that are left.
using GroupRows = RowGrouping (*)(int64_t left);

// Rows that a kernel takes at once, so that one pointer leads to all: of each block their values, and one number of each row.
struct RowGroup {
  int count = 0;
  const int8_t* values = nullptr;
  const float* scales = nullptr;
  const float* sums = nullptr;             // scale · Σ q: what a minimum is multiplied by
  const int32_t* corrections4 = nullptr;   // −8 · Σ q: what a product with unsigned 4-bit weights has too much
  const int32_t* corrections8 = nullptr;   // −128 · Σ q: the same with int8 weights + 128
};

// x [M, columns] in blocks of 32 along a row: x ≈ scale · q with q in −127 … 127. Read by several threads at once.
class QuantizedRows {
 public:
  // Rows are grouped from the first on, in blocks of kRowBlock rows.
  QuantizedRows(int64_t rows, int64_t columns, GroupRows group_rows);

  // Fills rows [first, first + count) from x [count, columns]; different rows may be filled by several threads at once. What the last block lacks is
  // zero; a block with a value that is not finite has the scale NaN.
  void set(int64_t first, int64_t count, const float* x);

  [[nodiscard]] int64_t rows() const { return rows_; }
  [[nodiscard]] int64_t blocks() const { return blocks_; }  // of a row
  // The group that begins with this row.
  [[nodiscard]] RowGroup group_at(int64_t row) const;

  // A multiple of what any kernel takes at once.
  static constexpr int64_t kRowBlock = 96;

 private:
  struct Place {
    int64_t first;  // of the row's group
    RowGrouping group;
  };
  [[nodiscard]] Place place_of(int64_t row) const;

  const int64_t rows_, columns_, blocks_;
  const GroupRows group_rows_;
  Lines<int8_t> values_;
  std::unique_ptr<float[]> scales_, sums_;
  std::unique_ptr<int32_t[]> corrections4_, corrections8_;
};

// One value has more than half of the row's sum of squares: beside it, what else is in its block would be rounded away.
[[nodiscard]] bool has_peak(const float* x, int64_t columns);
// What QuantizedRows loses of a row: x − scale · q.
void rounding_rest(const float* x, int64_t columns, float* rest);

}  // namespace penstock::kernels
