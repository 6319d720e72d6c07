#pragma once
// Activations in blocks of int8, made on the fly for products with quantized weights. Private to src/kernels; torch-free.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernels/quantized_blocks.h"

namespace penstock::kernels {

// x [M, columns] in blocks of 32 along a row: x ≈ scale · q with q in −127 … 127. Read by several threads at once.
class QuantizedRows {
 public:
  QuantizedRows(int64_t rows, int64_t columns);

  // Fills rows [first, first + count) from x [count, columns]; different rows may be filled by several threads at once. What the last block lacks is
  // zero; a block with a value that is not finite has the scale NaN.
  void set(int64_t first, int64_t count, const float* x);

  [[nodiscard]] int64_t rows() const { return rows_; }
  [[nodiscard]] int64_t blocks() const { return blocks_; }  // of a row
  [[nodiscard]] const int8_t* values(int64_t row) const { return values_.get() + row * blocks_ * kBlockValues; }
  [[nodiscard]] const float* scales(int64_t row) const { return scales_.get() + row * blocks_; }
  // −8 · Σ q of each block: what a product with unsigned 4-bit weights has too much. sixteen times that is what one with int8 + 128 has.
  [[nodiscard]] const int32_t* corrections(int64_t row) const { return corrections_.get() + row * blocks_; }
  // scale · Σ q of each block: what a minimum is multiplied by.
  [[nodiscard]] const float* sums(int64_t row) const { return sums_.get() + row * blocks_; }

 private:
  int64_t rows_, columns_, blocks_;
  std::unique_ptr<int8_t[]> values_;
  std::unique_ptr<float[]> scales_, sums_;
  std::unique_ptr<int32_t[]> corrections_;
};

}  // namespace penstock::kernels
