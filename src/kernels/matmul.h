#pragma once
// Matrix products on the CPU through oneDNN.
//
// Why not LibTorch's own: at::mm goes to whatever BLAS is installed. Debian's OpenBLAS 0.3.21 does not know CPUs newer than itself and
// then runs at a fifth of oneDNN's speed (docs/benchmarks.md).
#include <cstdint>

namespace penstock::kernels {

enum class Transpose : char { kNo = 'N', kYes = 'T' };

// C[M, N] = op(A) · op(B) + beta · C, all row-major float32, lda/ldb/ldc the lengths of a row in memory.
// op(A) is [M, K]; with kYes, A is stored [K, M] (likewise B).
// Threads: uses OpenMP's threads; called from inside a parallel region it stays on its own thread.
// The same shapes and thread count give the same bits.
void sgemm(Transpose a_op, Transpose b_op, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
           float beta, float* c, int64_t ldc);

}  // namespace penstock::kernels
