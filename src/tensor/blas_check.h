#pragma once
// Which BLAS LibTorch computes with, and whether it is a slow one: a wrong package costs a factor of 5 to 50 and nothing else tells.
#include <optional>
#include <string>

#include "tensor/cpu_features.h"

namespace penstock::tensor {

enum class BlasKind { kUnknown, kReference, kOpenBlas, kMkl, kBlis, kAtlas };
enum class BlasThreads { kUnknown, kNone, kPthread, kOpenMp };

struct BlasInfo {
  BlasKind kind = BlasKind::kUnknown;
  BlasThreads threads = BlasThreads::kUnknown;  // OpenBLAS only
  std::string kernels;                          // OpenBLAS only: the CPU its kernels were written for, e.g. "SkylakeX"
  std::string library;                          // the file that holds sgemm, when known
};

// Looks at the libraries loaded into this process.
[[nodiscard]] BlasInfo detect_blas();

// "OpenBLAS (SkylakeX kernels, OpenMP threads)": for the start-up log.
[[nodiscard]] std::string describe(const BlasInfo& blas);

// What is wrong with it and which package to install; nullopt when nothing is.
[[nodiscard]] std::optional<std::string> blas_warning(const BlasInfo& blas);

// The value of OPENBLAS_CORETYPE that makes OpenBLAS choose faster kernels than it chose by itself; nullopt when it chose well.
// OpenBLAS falls back to kernels of 2004 on a CPU model that is younger than the library.
[[nodiscard]] std::optional<std::string> better_openblas_kernels(const BlasInfo& blas, const CpuFeatures& cpu);

// To be called first in main(): when OpenBLAS chose slow kernels and OPENBLAS_CORETYPE is unset, sets it and starts this program
// anew in the same process (same id, same arguments; OpenBLAS reads the variable only while it loads). Returns otherwise.
void reexec_with_better_blas_kernels(char** argv);

}  // namespace penstock::tensor
