#include "tensor/blas_check.h"

#include <gtest/gtest.h>

namespace penstock::tensor {
namespace {

BlasInfo openblas(const std::string& kernels, BlasThreads threads) { return {BlasKind::kOpenBlas, threads, kernels, "/lib/libopenblas.so.0"}; }

TEST(BlasCheck, AReferenceBlasIsWarnedOfWithThePackageToInstall) {
  const auto warning = blas_warning({BlasKind::kReference, BlasThreads::kUnknown, "", "/lib/blas/libblas.so.3.11.0"});
  ASSERT_TRUE(warning);
  EXPECT_NE(warning->find("libopenblas0-openmp"), std::string::npos) << *warning;
  EXPECT_NE(warning->find("/lib/blas/libblas.so.3.11.0"), std::string::npos) << *warning;
}

TEST(BlasCheck, AnOpenBlasWithItsOwnThreadsIsWarnedOf) {
  EXPECT_TRUE(blas_warning(openblas("SkylakeX", BlasThreads::kPthread)));
  EXPECT_FALSE(blas_warning(openblas("SkylakeX", BlasThreads::kOpenMp)));
}

TEST(BlasCheck, OldKernelsAreReplacedByTheBestThatTheCpuRuns) {
  const CpuFeatures old_cpu;
  const CpuFeatures avx2{.avx2 = true};
  const CpuFeatures avx512{.avx2 = true, .avx512 = true};
  const BlasInfo prescott = openblas("Prescott", BlasThreads::kOpenMp);
  EXPECT_EQ(better_openblas_kernels(prescott, avx512), "SkylakeX");
  EXPECT_EQ(better_openblas_kernels(prescott, avx2), "Haswell");
  EXPECT_EQ(better_openblas_kernels(prescott, old_cpu), std::nullopt);
  EXPECT_EQ(better_openblas_kernels(openblas("Haswell", BlasThreads::kOpenMp), avx512), std::nullopt);
  EXPECT_EQ(better_openblas_kernels({BlasKind::kMkl, BlasThreads::kUnknown, "", ""}, avx512), std::nullopt);
}

TEST(BlasCheck, TheBlasOfThisProcessIsFound) {
  const BlasInfo blas = detect_blas();
  EXPECT_NE(blas.kind, BlasKind::kUnknown) << "sgemm_ comes from '" << blas.library << "'";
  EXPECT_FALSE(describe(blas).empty());
  EXPECT_EQ(blas.kernels.empty(), blas.kind != BlasKind::kOpenBlas);
}

TEST(CpuFeatures, AvxBf16ImpliesAvx512) {
  const CpuFeatures cpu = cpu_features();
  EXPECT_LE(cpu.avx512_bf16, cpu.avx512);
  EXPECT_LE(cpu.avx512, cpu.avx2);
}

}  // namespace
}  // namespace penstock::tensor
