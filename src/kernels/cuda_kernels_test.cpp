// Our own CUDA kernels against LibTorch's operations in float64, on random data of odd sizes.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/head_norm.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"
#include "tensor/device.h"

namespace penstock::kernels {
namespace {

class CudaKernels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
    if (!cuda::built()) GTEST_SKIP() << "built without CUDA kernels of our own (PENSTOCK_CUDA_KERNELS)";
  }

  // Of normal numbers, new ones each time; `shift` elements behind a 512-byte border.
  Tensor random(at::IntArrayRef shape, int64_t shift = 0) {
    const int64_t count = c10::multiply_integers(shape);
    return at::randn({count + shift}, gpu()).narrow(0, shift, count).view(shape);
  }
  static at::TensorOptions gpu() { return at::TensorOptions(at::kCUDA).dtype(at::kFloat); }

  // The memory that the next result of this size gets is full of NaN: what a kernel does not write is seen.
  static void poison(int64_t numel) { at::full({numel}, NAN, gpu()); }

  // ‖a − b‖ / ‖b‖; NaN where a has one.
  static double error(const Tensor& a, const Tensor& b) { return ((a.to(at::kDouble) - b).norm() / b.norm().clamp_min(1e-30)).item<double>(); }

  at::NoGradGuard no_grad_;
};

TEST(CudaKernelsOff, TakeNothingOfTheCpuAndNothingThatNeedsAGradient) {
  EXPECT_FALSE(cuda::takes(at::zeros({2, 8})));
  EXPECT_FALSE(cuda::takes_product(at::zeros({2, 8}), at::zeros({4, 8})));
  if (tensor::num_gpus() == 0) return;
  EXPECT_FALSE(cuda::takes(at::zeros({2, 8}, at::kCUDA))) << "gradients are recorded here";
}

TEST_F(CudaKernels, ServeWhereGradientsAreNotRecorded) {
  const Tensor x = random({3, 64});
  EXPECT_TRUE(cuda::takes(x));
  EXPECT_FALSE(cuda::takes(x.to(at::kDouble)));
  EXPECT_TRUE(cuda::takes_product(x, random({5, 64}).to(at::kBFloat16)));
  EXPECT_FALSE(cuda::takes_product(random({cuda::kFewRows + 1, 64}), random({5, 64})));
  const Tensor large = at::empty({50000, 512}, gpu().dtype(at::kBFloat16));
  EXPECT_TRUE(cuda::takes_product(at::empty({4, 512}, gpu()), large));
  EXPECT_FALSE(cuda::takes_product(at::empty({5, 512}, gpu()), large)) << "LibTorch is faster";
  EXPECT_FALSE(cuda::takes_product(x, at::zeros({1, 1}, gpu()).expand({5, 64}))) << "what stands for a quantized weight";
}

TEST_F(CudaKernels, RmsNormEqualsTheReference) {
  for (const auto& [rows, width, shift] : std::vector<std::array<int64_t, 3>>{{1, 576, 0}, {1, 4096, 0}, {7, 33, 0}, {300, 1026, 0}, {5, 576, 1}, {70000, 8, 0}, {2, 1, 0}, {3, 16384, 0}}) {
    const Tensor x = random({rows, width}, shift), w = random({width}, shift);
    poison(x.numel());
    EXPECT_LT(error(rms_norm(x, w, 1e-5), rms_norm_reference(x.to(at::kDouble), w.to(at::kDouble), 1e-5)), 1e-6) << rows << " x " << width << ", shifted by " << shift;
  }
  const Tensor x = random({4, 6, 96}).transpose(0, 1), w = random({96});
  EXPECT_LT(error(rms_norm(x, w, 1e-5), rms_norm_reference(x.to(at::kDouble), w.to(at::kDouble), 1e-5)), 1e-6) << "a view with gaps";
  EXPECT_EQ(rms_norm(random({0, 96}), w, 1e-5).numel(), 0);
}

TEST_F(CudaKernels, HeadNormEqualsTheReference) {
  for (const auto& [rows, shift, shape] : std::vector<std::tuple<int64_t, int64_t, AttentionShape>>{
           {1, 0, {16, 8, 128}}, {5, 0, {9, 3, 64}}, {3, 1, {4, 2, 64}}, {33, 0, {2, 1, 6}}, {513, 0, {7, 7, 80}}, {2, 0, {2, 2, 256}}}) {
    const Tensor x = random({rows, shape.row()}, shift), q = random({shape.head_size}), k = random({shape.head_size});
    poison(x.numel());
    const Tensor expected = head_norm_reference(x.to(at::kDouble), shape, q.to(at::kDouble), k.to(at::kDouble), 1e-6);
    EXPECT_LT(error(head_norm(x, shape, q, k, 1e-6), expected), 1e-6) << rows << " rows, " << shape.heads << "+" << shape.kv_heads << " heads of " << shape.head_size << ", shifted by " << shift;
  }
}

TEST_F(CudaKernels, SwigluEqualsTheReference) {
  for (const auto& [rows, width, shift] : std::vector<std::array<int64_t, 3>>{{1, 1536, 0}, {7, 33, 0}, {1, 1536, 3}, {70000, 8, 0}, {5, 1, 0}, {512, 1538, 0}}) {
    const Tensor x = random({rows, 2 * width}, shift) * 5;
    poison(x.numel() / 2);
    EXPECT_LT(error(swiglu(x), swiglu_reference(x.to(at::kDouble))), 1e-6) << rows << " x " << width << ", shifted by " << shift;
  }
  const Tensor extreme = at::tensor({-200.0f, 200.0f, 3.0f, 3.0f}, gpu()).view({1, 4});
  EXPECT_TRUE(swiglu(extreme).isfinite().all().item<bool>());
}

struct ProductCase {
  int64_t rows, width, outputs, shift;
};

TEST_F(CudaKernels, ProductsOfFewRowsEqualTheReference) {
  for (const ProductCase& c : std::vector<ProductCase>{{1, 576, 960, 0},  {1, 1536, 576, 0}, {2, 4096, 4096, 0}, {3, 576, 3072, 0}, {4, 2048, 49152, 0}, {8, 1536, 576, 0}, {8, 2048, 9001, 0},
                                                       {1, 33, 7, 0},     {4, 8, 1, 0},      {7, 1030, 5, 0},     {8, 100, 8195, 0}, {1, 576, 960, 1},    {6, 64, 3, 1},     {1, 1, 1, 0}}) {
    for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
      const Tensor x = random({c.rows, c.width}, c.shift), weight = random({c.outputs, c.width}, c.shift).to(type), bias = random({c.outputs});
      const std::string sizes = fmt::format("{} rows, weight {} x {} of {}, shifted by {}", c.rows, c.outputs, c.width, c10::toString(type), c.shift);
      const Tensor expected = at::mm(x.to(at::kDouble), weight.to(at::kDouble).t());
      poison(c.rows * c.outputs);
      EXPECT_LT(error(kernels::linear(x, weight), expected), 2e-6) << sizes;
      poison(c.rows * c.outputs);
      EXPECT_LT(error(linear(x, weight, bias, {}), expected + bias), 2e-6) << sizes << ", with a bias";
      const Tensor base = random({c.rows, c.outputs}, c.shift);
      poison(c.rows * c.outputs);
      EXPECT_LT(error(add_linear(base, x, weight, bias, {}), expected + bias + base), 2e-6) << sizes << ", added to a base";
      if (c.outputs % 2 == 1) continue;
      poison(c.rows * c.outputs / 2);
      const Tensor gated = gated_linear(x, weight, bias, {});
      EXPECT_LT(error(gated, swiglu_reference(expected + bias)), 1e-5) << sizes << ", gated";
      EXPECT_TRUE(gated.equal(swiglu(linear(x, weight, bias, {})))) << sizes << ", gated: one launch rounds as two";
    }
  }
}

TEST_F(CudaKernels, AProductsRowDependsOnThatRowAlone) {
  for (const int64_t outputs : {70, 9000}) {
    const Tensor x = random({cuda::kFewRows, 1536}), weight = random({outputs, 1536}).to(at::kBFloat16);
    const Tensor all = kernels::linear(x, weight);
    const Tensor gated = gated_linear(x, weight, {}, {});
    for (const int64_t rows : {1, 2, 3, 4, 7}) {
      const Tensor few = x.narrow(0, 0, rows);
      EXPECT_TRUE(kernels::linear(few, weight).equal(all.narrow(0, 0, rows))) << rows << " rows of " << outputs << " outputs";
      EXPECT_TRUE(gated_linear(few, weight, {}, {}).equal(gated.narrow(0, 0, rows))) << rows << " rows of " << outputs << " outputs, gated";
    }
  }
}

TEST_F(CudaKernels, ProductsKeepTheShapeAndWorkOnTheCurrentStream) {
  const Tensor x = random({2, 3, 64}), weight = random({5, 64});
  EXPECT_EQ(kernels::linear(x, weight).sizes(), at::IntArrayRef({2, 3, 5}));
  // A long queue of work that each step depends on: on another stream the last ones would read too early.
  Tensor y = random({1, 2048}), z = y;
  const Tensor square = random({2048, 2048}) / std::sqrt(2048.0), doubled = square.to(at::kDouble);
  for (int i = 0; i < 20; ++i) y = rms_norm(kernels::linear(y, square), at::ones({2048}, gpu()), 0);
  Tensor expected = z.to(at::kDouble);
  for (int i = 0; i < 20; ++i) expected = rms_norm_reference(at::mm(expected, doubled.t()), at::ones({2048}, doubled.options()), 0);
  EXPECT_LT(error(y, expected), 1e-4);
}

}  // namespace
}  // namespace penstock::kernels
