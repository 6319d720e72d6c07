#pragma once
// y = x · Wᵀ in float32 with a W of bfloat16, in a processor's matrix registers (kernels/amx.h). Private to src/kernels; torch-free.
//
// x is taken as the sum of two numbers of bfloat16, 16 bits of its 24; products are exact and sums are float32. So y is what float32 arithmetic gives, to 2⁻¹⁶ of
// the sizes of what is summed, where they are above 1e-35: these registers take less than 1.2e-38 for zero. A row with an infinity, or a value that rounds to one
// (3.396e38 and more), gives no numbers at all. A row of y depends on its row of x alone.
#include "kernels/float_product.h"

namespace penstock::kernels {

// As multiply(). REQUIRES: has_amx().
void multiply_by_amx(const Bfloat16* weight, const float* x, float* y, const ProductSizes& sizes);

}  // namespace penstock::kernels
