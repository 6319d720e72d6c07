#pragma once
// Root mean square normalisation of rows in plain memory, shared by whole rows and by the heads within them. Private to src/kernels.
#include <cstdint>

namespace penstock::kernels {

// y = x · inverse · weight with inverse = 1/sqrt(mean(x²) + eps), which is kept for the backward pass; x, y [rows, width], weight [width].
void normalise_rows(const float* x, const float* weight, float* y, float* inverse, int64_t rows, int64_t width, float eps);

// With s = inverse: dx = s·(w·dy) − x·s³/width·Σ(w·dy·x); adds Σ over rows of dy·x·s to dw.
void normalise_rows_backward(const float* x, const float* weight, const float* dy, const float* inverse, float* dx, float* dw, int64_t rows,
                             int64_t width);

}  // namespace penstock::kernels
