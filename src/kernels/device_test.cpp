// What computes on a GPU: its operations on the CPU against the CPU's kernels, and on a GPU where there is one.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/attention_on_device.h"
#include "kernels/cross_entropy.h"
#include "kernels/device_optimizers.h"
#include "kernels/embedding.h"
#include "kernels/head_norm.h"
#include "kernels/linear.h"
#include "kernels/peak_flops.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"
#include "kernels/training_on_device.h"
#include "kernels/weight_grad_queue.h"
#include "tensor/device.h"

namespace penstock::kernels {
namespace {

// The largest |a − b| relative to the largest |b|.
double difference(const Tensor& a, const Tensor& b) {
  const Tensor here = a.cpu();
  return (here - b).abs().max().item<double>() / std::max(1e-6, b.abs().max().item<double>());
}

Tensor random(at::IntArrayRef shape, int seed) {
  at::manual_seed(seed);
  return at::randn(shape);
}

// The value of `f` on `device` and the gradients of its inputs, for fixed random gradients of the value; all on the CPU.
template <typename F>
std::vector<Tensor> with_gradients(const std::vector<Tensor>& inputs, const at::Device& device, F f) {
  std::vector<Tensor> leaves;
  for (const auto& x : inputs) leaves.push_back(x.to(device, at::kFloat, false, true).requires_grad_(true));
  const Tensor y = f(leaves);
  (y * random(y.sizes(), 99).to(device)).sum().backward();
  std::vector<Tensor> out{y.detach().cpu()};
  for (const auto& x : leaves) out.push_back(x.grad().cpu());
  return out;
}

void expect_same(const std::vector<Tensor>& got, const std::vector<Tensor>& expected, double tolerance) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LT(difference(got[i], expected[i]), tolerance) << (i == 0 ? "value" : "gradient of input " + std::to_string(i - 1));
  }
}

// The starts of documents in rows of 70 positions.
Tensor two_documents() {
  Tensor starts = at::zeros({2, 70}, at::kInt);
  starts[0].slice(0, 13).fill_(13);
  starts[1].slice(0, 40, 69).fill_(40);
  starts[1][69].fill_(69);
  return starts;
}

TEST(AttentionOnDevice, EqualsTheCpusKernelWithGradients) {
  const AttentionShape shape{4, 2, 16};
  const RotaryTable rotary(80, 16, 100);
  const std::vector<Tensor> qkv = {random({2, 70, shape.row()}, 1)};
  for (const Tensor& starts : {Tensor(), two_documents()}) {
    const auto kernel = with_gradients(qkv, at::kCPU, [&](auto& in) { return causal_attention(in[0], shape, rotary, starts); });
    expect_same(with_gradients(qkv, at::kCPU, [&](auto& in) { return attention_on_device(in[0], shape, rotary, starts, Compute::kFp32); }), kernel, 2e-5);
    expect_same(with_gradients(qkv, at::kCPU, [&](auto& in) { return attention_on_device(in[0], shape, rotary, starts, Compute::kBf16); }), kernel, 5e-2);
  }
}

TEST(TrainingOnDevice, NormAndGateEqualTheCpusKernelsWithGradients) {
  const std::vector<Tensor> norm = {random({2, 37, 24}, 1), random({24}, 2)}, gate = {random({7, 2, 62}, 1) * 6};
  expect_same(with_gradients(norm, at::kCPU, [](auto& in) { return rms_norm_on_device(in[0], in[1], 1e-5); }),
              with_gradients(norm, at::kCPU, [](auto& in) { return rms_norm(in[0], in[1], 1e-5); }), 1e-5);
  expect_same(with_gradients(gate, at::kCPU, [](auto& in) { return swiglu_on_device(in[0]); }),
              with_gradients(gate, at::kCPU, [](auto& in) { return swiglu(in[0]); }), 1e-5);
}

TEST(Linear, InFloat16RoundsAsAGpuDoes) {
  const Tensor x = random({33, 64}, 1), w = random({48, 64}, 2);
  const auto exact = with_gradients({x, w}, at::kCPU, [](auto& in) { return kernels::linear(in[0], in[1]); });
  const auto rounded = with_gradients({x, w}, at::kCPU, [](auto& in) { return linear(in[0], in[1], {Compute::kFp16, nullptr}); });
  expect_same(rounded, exact, 2e-3);
  EXPECT_TRUE(rounded[0].equal(rounded[0].to(at::kHalf).to(at::kFloat)));
  EXPECT_FALSE(rounded[0].equal(exact[0].to(at::kHalf).to(at::kFloat))) << "operands are rounded, too";
  EXPECT_TRUE(at::isinf(kernels::linear(x * 1e4, w * 1e3, {Compute::kFp16, nullptr})).any().item<bool>()) << "65504 is the largest";
}

// Parameters of 3 and 5000 elements, after some gradients.
struct Trained {
  std::vector<Tensor> weights, m, v;
};

template <typename Step>
Trained trained(Step step) {
  Trained t;
  for (const int64_t size : {3, 5000}) {
    t.weights.push_back(random({size}, 1));
    t.m.push_back(at::zeros({size}));
    t.v.push_back(at::zeros({size}));
  }
  for (int64_t n = 1; n <= 4; ++n) {
    std::vector<Tensor> gradients;
    for (const Tensor& w : t.weights) gradients.push_back(random(w.sizes(), static_cast<int>(10 + n)));
    step(t, gradients, n);
  }
  return t;
}

std::vector<OptimizedTensors> all_of(const Trained& t, const std::vector<Tensor>& gradients) {
  std::vector<OptimizedTensors> all;
  for (size_t i = 0; i < gradients.size(); ++i) all.push_back({t.weights[i], gradients[i], t.m[i], t.v[i]});
  return all;
}

void expect_same(const Trained& got, const Trained& expected) {
  for (size_t i = 0; i < got.weights.size(); ++i) {
    EXPECT_LT(difference(got.weights[i], expected.weights[i]), 1e-6);
    EXPECT_LT(difference(got.m[i], expected.m[i]), 1e-6);
    EXPECT_LT(difference(got.v[i], expected.v[i]), 1e-6);
  }
}

AdamStep adam_step(int64_t n) { return {.lr = 0.01f, .weight_decay = 0.1f, .gradient_scale = 0.5f, .step = n}; }

TEST(DeviceOptimizers, AdamwEqualsTheCpusKernel) {
  expect_same(trained([](Trained& t, const std::vector<Tensor>& g, int64_t n) { adamw(all_of(t, g), adam_step(n)); }),
              trained([](Trained& t, const std::vector<Tensor>& g, int64_t n) {
                for (size_t i = 0; i < g.size(); ++i) {
                  adamw(t.weights[i].data_ptr<float>(), g[i].data_ptr<float>(), t.m[i].data_ptr<float>(), t.v[i].data_ptr<float>(), g[i].numel(), adam_step(n));
                }
              }));
}

TEST(DeviceOptimizers, MomentumSgdEqualsTheCpusKernel) {
  const MomentumStep step{.lr = 0.01f, .momentum = 0.9f, .weight_decay = 0.1f, .gradient_scale = 0.5f, .lr_scale = 0.3f};
  expect_same(trained([&](Trained& t, const std::vector<Tensor>& g, int64_t) { momentum_sgd(all_of(t, g), step); }),
              trained([&](Trained& t, const std::vector<Tensor>& g, int64_t) {
                for (size_t i = 0; i < g.size(); ++i) momentum_sgd(t.weights[i].data_ptr<float>(), g[i].data_ptr<float>(), t.m[i].data_ptr<float>(), g[i].numel(), step);
              }));
}

TEST(DeviceOptimizers, SquaresOfFiniteValuesMayBeBeyondFloat32) {
  const std::vector<double> sums = sums_of_squares({at::full({4}, 1e30f), at::full({3}, std::numeric_limits<float>::infinity()), at::full({3}, NAN), at::ones({9})});
  EXPECT_NEAR(sums[0] / 4e60, 1, 1e-6);
  EXPECT_TRUE(std::isinf(sums[1]));
  EXPECT_TRUE(std::isnan(sums[2]));
  EXPECT_EQ(sums[3], 9);
}

TEST(DeviceOptimizers, LambEqualsTheCpusKernels) {
  std::vector<double> weights, updates;
  const Trained got = trained([&](Trained& t, const std::vector<Tensor>& g, int64_t n) {
    for (const OptimizedTensors& one : all_of(t, g)) {
      const Tensor direction = lamb_direction(one, adam_step(n));
      weights.push_back(sums_of_squares({one.weights})[0]);
      updates.push_back(sums_of_squares({direction})[0]);
      one.weights.sub_(direction, 0.01 * 0.7);
    }
  });
  size_t k = 0;
  const Trained expected = trained([&](Trained& t, const std::vector<Tensor>& g, int64_t n) {
    for (size_t i = 0; i < g.size(); ++i, ++k) {
      float *w = t.weights[i].data_ptr<float>(), *m = t.m[i].data_ptr<float>(), *v = t.v[i].data_ptr<float>();
      const SquareSums sums = lamb_moments(w, g[i].data_ptr<float>(), m, v, g[i].numel(), adam_step(n));
      EXPECT_NEAR(weights[k] / sums.weights, 1, 1e-5);
      EXPECT_NEAR(updates[k] / sums.update, 1, 1e-5);
      lamb_update(w, m, v, g[i].numel(), adam_step(n), 0.7f);
    }
  });
  expect_same(got, expected);
}

// On the first GPU; a failure names the input whose gradient differs.
class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if (tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
  }
  template <typename F>
  void expect_as_on_the_cpu(const std::vector<Tensor>& inputs, F f, double tolerance = 2e-5) const {
    expect_same(with_gradients(inputs, device_, f), with_gradients(inputs, at::kCPU, f), tolerance);
  }
  const at::Device device_{at::kCUDA, 0};
};

TEST_F(Gpu, NormsGatesAndTablesEqualTheCpusWithGradients) {
  expect_as_on_the_cpu({random({2, 37, 24}, 1), random({24}, 2)}, [](auto& in) { return rms_norm(in[0], in[1], 1e-5); });
  const AttentionShape shape{4, 2, 6};
  expect_as_on_the_cpu({random({2, 37, shape.row()}, 1), random({6}, 2), random({6}, 3)}, [&](auto& in) { return head_norm(in[0], shape, in[1], in[2], 1e-6); });
  expect_as_on_the_cpu({random({7, 2, 62}, 1) * 6}, [](auto& in) { return swiglu(in[0]); });
  const Tensor ids = at::arange(40).remainder(9).view({4, 10});
  expect_as_on_the_cpu({random({9, 24}, 1)}, [&](auto& in) { return embedding(in[0], ids.to(in[0].device()), {}); });
}

TEST_F(Gpu, CrossEntropyEqualsTheCpusWithGradients) {
  Tensor targets = at::arange(74).remainder(50).view({2, 37});
  targets[1][5].fill_(-1);
  expect_as_on_the_cpu({random({2, 37, 50}, 1) * 3}, [&](auto& in) { return cross_entropy_sum(in[0], targets.to(in[0].device())); });
}

TEST_F(Gpu, LinearEqualsTheCpusWithGradientsAtOnceAndPutOff) {
  const std::vector<Tensor> inputs = {random({3, 5, 170}, 1), random({90, 170}, 2), random({90}, 3)};
  expect_as_on_the_cpu(inputs, [](auto& in) { return linear(in[0], in[1], in[2], {}); });
  expect_as_on_the_cpu(inputs, [](auto& in) { return linear(in[0], in[1], in[2], {Compute::kBf16, nullptr}); }, 2e-2);
  expect_as_on_the_cpu(inputs, [](auto& in) { return linear(in[0], in[1], in[2], {Compute::kFp16, nullptr}); }, 2e-3);
  const auto gradient_of_weight = [&](const at::Device& device) {
    const Tensor x = inputs[0].to(device, at::kFloat, false, true).requires_grad_(true), w = inputs[1].to(device, at::kFloat, false, true).requires_grad_(true);
    WeightGradQueue queue;
    linear(x, w, {Compute::kFp32, &queue}).square().sum().backward();
    EXPECT_FALSE(w.grad().defined());
    queue.run({});
    return w.grad().cpu();
  };
  EXPECT_LT(difference(gradient_of_weight(device_), gradient_of_weight(at::kCPU)), 2e-5);
}

TEST_F(Gpu, AttentionEqualsTheCpusWithGradients) {
  const AttentionShape shape{4, 2, 64};
  const RotaryTable rotary(300, 64, 10000);
  expect_as_on_the_cpu({random({2, 257, shape.row()}, 1)}, [&](auto& in) { return causal_attention(in[0], shape, rotary); });
  expect_as_on_the_cpu({random({2, 70, shape.row()}, 1)}, [&](auto& in) { return causal_attention(in[0], shape, rotary, two_documents().to(in[0].device())); });
  const auto in_bf16 = [&](auto& in) { return causal_attention(in[0], shape, rotary, {}, Compute::kBf16); };
  expect_as_on_the_cpu({random({2, 257, shape.row()}, 1)}, in_bf16, 3e-2);
}

TEST_F(Gpu, MeasuresItsPeak) {
  const double fp32 = measure_peak_flops(Compute::kFp32, 0.2, device_), bf16 = measure_peak_flops(Compute::kBf16, 0.2, device_);
  std::printf("peak: %.1f TFLOP/s in fp32, %.1f in bf16\n", fp32 * 1e-12, bf16 * 1e-12);
  EXPECT_GT(fp32, 1e11);
}

}  // namespace
}  // namespace penstock::kernels
