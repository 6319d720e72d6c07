#include "kernels/float_tiles.h"

namespace penstock::kernels {
namespace {

template <typename W>
void add(const FloatTile<W>& t, int, int weights) {
  for (int j = 0; j < weights; ++j) {
    float sum = 0;
    for (int64_t k = 0; k < t.columns; ++k) sum += t.x[k] * value_of(t.w[j * t.w_row + k]);
    t.y[j] += sum;
  }
}

}  // namespace

const FloatKernels& plain_float_kernels() {
  static const FloatKernels kernels{"plain", 1, add<float>, add<Bfloat16>};
  return kernels;
}

}  // namespace penstock::kernels
