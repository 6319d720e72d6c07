// Every kernel against plain LibTorch operations, values and gradients.
#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/optimizers.h"
#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/head_norm.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"
#include "kernels/weight_grad_queue.h"

namespace penstock::kernels {
namespace {

// The largest |a − b| relative to the largest |b|.
double difference(const Tensor& a, const Tensor& b) {
  return (a - b).abs().max().item<double>() / std::max(1e-6, b.abs().max().item<double>());
}

Tensor leaf(at::IntArrayRef shape, int seed) {
  at::manual_seed(seed);
  return at::randn(shape).requires_grad_(true);
}

// Runs `f` and the backward pass of Σ y·w for fixed random w; {y, gradient of each input}.
template <typename F>
std::vector<Tensor> with_gradients(const std::vector<Tensor>& inputs, F f) {
  std::vector<Tensor> leaves;
  for (const auto& x : inputs) leaves.push_back(x.detach().clone().requires_grad_(true));
  Tensor y = f(leaves);
  at::manual_seed(99);
  (y * at::randn(y.sizes())).sum().backward();
  std::vector<Tensor> out{y.detach()};
  for (const auto& x : leaves) out.push_back(x.grad());
  return out;
}

template <typename F, typename G>
void expect_same(const std::vector<Tensor>& inputs, F ours, G reference, double tolerance) {
  const auto got = with_gradients(inputs, ours), expected = with_gradients(inputs, reference);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LT(difference(got[i], expected[i]), tolerance) << (i == 0 ? "value" : "gradient of input " + std::to_string(i - 1));
  }
}

TEST(Linear, EqualsTheReferenceWithGradients) {
  expect_same({leaf({3, 5, 17}, 1), leaf({9, 17}, 2)}, [](auto& in) { return linear(in[0], in[1], {Compute::kFp32, nullptr}); },
              [](auto& in) { return at::linear(in[0], in[1]); }, 1e-5);
}

TEST(Linear, RoundsOperandsToBfloat16WhenAsked) {
  const Tensor x = leaf({33, 64}, 1), w = leaf({48, 64}, 2);
  const Tensor exact = at::linear(x, w).detach(), rounded = linear(x, w, {Compute::kBf16, nullptr}).detach();
  const double error = difference(rounded, exact);
  EXPECT_LT(error, 2e-2);
  EXPECT_GT(error, 1e-5) << "bfloat16 operands cannot give float32's result";
}

TEST(Linear, GivesNoGradientToWhatNeedsNone) {
  const Tensor x = at::randn({4, 8}), w = leaf({2, 8}, 3);
  linear(x, w, {Compute::kFp32, nullptr}).sum().backward();
  EXPECT_FALSE(x.grad().defined());
  EXPECT_LT(difference(w.grad(), x.sum(0).expand({2, 8})), 1e-5);
}

TEST(Linear, WithABiasEqualsTheReferenceWithGradients) {
  expect_same({leaf({3, 5, 17}, 1), leaf({9, 17}, 2), leaf({9}, 3)}, [](auto& in) { return linear(in[0], in[1], in[2], {}); },
              [](auto& in) { return at::linear(in[0], in[1], in[2]); }, 1e-5);
  at::NoGradGuard no_grad;
  const Tensor x = at::randn({4, 17}), w = at::randn({9, 17}), b = at::randn({9});
  EXPECT_LT(difference(linear(x, w, b, {}), at::linear(x, w, b)), 1e-5);
  EXPECT_TRUE(linear(x, w, Tensor(), {}).equal(kernels::linear(x, w)));
}

TEST(Linear, AddsToABaseAndGatesWithGradients) {
  const std::vector<Tensor> inputs{leaf({3, 5, 17}, 1), leaf({8, 17}, 2), leaf({8}, 3), leaf({3, 5, 8}, 4)};
  expect_same(inputs, [](auto& in) { return add_linear(in[3], in[0], in[1], in[2], {}); }, [](auto& in) { return in[3] + at::linear(in[0], in[1], in[2]); }, 1e-5);
  expect_same({inputs[0], inputs[1], inputs[2]}, [](auto& in) { return gated_linear(in[0], in[1], in[2], {}); },
              [](auto& in) { return swiglu_reference(at::linear(in[0], in[1], in[2])); }, 1e-5);
}

TEST(Linear, PutsOffTheWeightsGradientAndNotTheBiass) {
  const Tensor x = leaf({6, 5}, 1), w = leaf({3, 5}, 2), b = leaf({3}, 3);
  WeightGradQueue queue;
  linear(x, w, b, {Compute::kFp32, &queue}).sum().backward();
  EXPECT_TRUE(b.grad().equal(at::full({3}, 6.0f)));
  EXPECT_FALSE(w.grad().defined());
  queue.run({});
  EXPECT_LT(difference(w.grad(), x.detach().sum(0).expand({3, 5})), 1e-5);
}

TEST(HeadNorm, EqualsTheReferenceWithGradients) {
  const AttentionShape shape{4, 2, 6};
  expect_same({leaf({2, 37, shape.row()}, 1), leaf({6}, 2), leaf({6}, 3)}, [&](auto& in) { return head_norm(in[0], shape, in[1], in[2], 1e-6); },
              [&](auto& in) { return head_norm_reference(in[0], shape, in[1], in[2], 1e-6); }, 1e-5);
}

TEST(Rotary, AScaledTableTurnsAndStretches) {
  const RotaryTable plain(8, rotary_frequencies(6, 100)), scaled(8, rotary_frequencies(6, 100), 1.5);
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  std::vector<float> a(6), b(6);
  rotate_heads(x.data(), a.data(), 1, 3, plain.cos(5), plain.sin(5), Rotation::kForward, 1.5f);
  rotate_heads(x.data(), b.data(), 1, 3, scaled.cos(5), scaled.sin(5), Rotation::kForward, 1.0f);
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(a[i], b[i], 1e-5);
}

TEST(RmsNorm, EqualsTheReferenceWithGradients) {
  expect_same({leaf({2, 37, 24}, 1), leaf({24}, 2)}, [](auto& in) { return rms_norm(in[0], in[1], 1e-5); },
              [](auto& in) { return rms_norm_reference(in[0], in[1], 1e-5); }, 1e-5);
}

TEST(Swiglu, EqualsTheReferenceWithGradients) {
  expect_same({leaf({7, 2, 62}, 1) * 6}, [](auto& in) { return swiglu(in[0]); }, [](auto& in) { return swiglu_reference(in[0]); }, 1e-5);
}

TEST(Swiglu, StaysFiniteFarFromZero) {
  EXPECT_TRUE(swiglu(at::tensor({-1e4f, 1e4f, 3.0f, 3.0f}).view({1, 4})).isfinite().all().item<bool>());
}

TEST(CrossEntropy, EqualsTheReferenceWithGradientsAndSkipsNegativeTargets) {
  const Tensor targets = at::tensor({0, 4, -100, 12, 7, 1}, at::kLong);
  expect_same({leaf({6, 13}, 1) * 5}, [&](auto& in) { return cross_entropy_sum(in[0], targets); },
              [&](auto& in) { return cross_entropy_sum_reference(in[0], targets); }, 1e-5);
}

TEST(CrossEntropy, RefusesATargetOutsideTheClasses) {
  EXPECT_THROW(cross_entropy_sum(at::zeros({1, 3}), at::tensor({3}, at::kLong)), Bug);
}

class Attention : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(Attention, EqualsTheReferenceWithGradients) {
  const auto [heads, kv_heads, length] = GetParam();
  const AttentionShape shape{heads, kv_heads, 8};
  const RotaryTable rotary(256, 8, 10000);
  expect_same({leaf({2, length, shape.row()}, 1)}, [&](auto& in) { return causal_attention(in[0], shape, rotary); },
              [&](auto& in) { return causal_attention_reference(in[0], shape, rotary); }, 2e-5);
}

// Documents of several lengths in each row: within a chunk of queries, over its border, one position long, the whole row.
Tensor document_starts(int64_t length) {
  Tensor starts = at::zeros({3, length}, at::kInt);
  for (int64_t row = 0; row < 2; ++row) {
    int32_t start = 0;
    for (int32_t t = 0; t < length; ++t) {
      if (t == 1 || (row == 0 ? t % 7 == 3 : t % 67 == 30)) start = t;
      starts[row][t] = start;
    }
  }
  return starts;
}

TEST_P(Attention, OfSeveralDocumentsARowEqualsTheMaskedReferenceWithGradients) {
  const auto [heads, kv_heads, length] = GetParam();
  const AttentionShape shape{heads, kv_heads, 8};
  const RotaryTable rotary(256, 8, 10000);
  const Tensor starts = document_starts(length);
  expect_same({leaf({3, length, shape.row()}, 1)}, [&](auto& in) { return causal_attention(in[0], shape, rotary, starts); },
              [&](auto& in) { return causal_attention_reference(in[0], shape, rotary, starts); }, 2e-5);
}

TEST_P(Attention, OfSeveralDocumentsARowEqualsEachDocumentAlone) {
  const auto [heads, kv_heads, length] = GetParam();
  const AttentionShape shape{heads, kv_heads, 8};
  const RotaryTable rotary(256, 8, 10000);
  const Tensor starts = document_starts(length), qkv = leaf({3, length, shape.row()}, 1).detach();
  const Tensor together = causal_attention(qkv, shape, rotary, starts);
  for (int64_t row = 0; row < 3; ++row) {
    for (int64_t begin = 0, end = 0; begin < length; begin = end) {
      while (end < length && starts[row][end].item<int32_t>() == begin) ++end;
      const Tensor alone = causal_attention(qkv[row].narrow(0, begin, end - begin).unsqueeze(0).contiguous(), shape, rotary);
      EXPECT_LT(difference(together[row].narrow(0, begin, end - begin), alone[0]), 2e-5) << "row " << row << ", document at " << begin;
    }
  }
}

TEST(DocumentAttention, RefusesStartsThatAreNone) {
  const AttentionShape shape{2, 2, 8};
  const RotaryTable rotary(16, 8, 10000);
  const Tensor qkv = at::zeros({1, 3, shape.row()});
  EXPECT_THROW(causal_attention(qkv, shape, rotary, at::tensor({0, 2, 2}, at::kInt).unsqueeze(0)), Bug);
  EXPECT_THROW(causal_attention(qkv, shape, rotary, at::tensor({0, 1, 0}, at::kInt).unsqueeze(0)), Bug);
  EXPECT_THROW(causal_attention(qkv, shape, rotary, at::tensor({0, 0}, at::kInt).unsqueeze(0)), Bug);
}

// An empty cache of pages that nobody has written.
struct Cache {
  Cache(int64_t pages, const AttentionShape& shape, at::ScalarType dtype = at::kFloat)
      : k(at::full({pages, shape.kv_heads, shape.head_size, kPageTokens}, NAN, dtype)), v(at::full({pages, shape.kv_heads, kPageTokens, shape.head_size}, NAN, dtype)) {}
  Tensor k, v;
};

TEST_P(Attention, WithACacheEqualsTheWholeSequenceHoweverItIsCut) {
  const auto [heads, kv_heads, length] = GetParam();
  const AttentionShape shape{heads, kv_heads, 8};
  const RotaryTable rotary(256, 8, 10000);
  at::NoGradGuard no_grad;
  const Tensor qkv = leaf({1, length, shape.row()}, 1).detach();
  const Tensor whole = causal_attention_reference(qkv, shape, rotary)[0];
  const std::vector<int32_t> pages = {4, 0, 9, 2, 7, 1, 8, 3, 6};  // anywhere
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    Tensor first;
    for (const int piece : {1, 3, 8, 9, 20, length}) {
      Cache cache(10, shape, dtype);
      std::vector<Tensor> rows;
      for (int start = 0; start < length; start += piece) {
        const SequenceRows part{pages, start, std::min(piece, length - start)};
        rows.push_back(cached_attention(qkv[0].narrow(0, start, part.count).clone(), shape, rotary, std::span(&part, 1), cache.k, cache.v));
      }
      const Tensor out = at::cat(rows);
      EXPECT_LT(difference(out, whole), dtype == at::kFloat ? 2e-5 : 2e-2) << "pieces of " << piece;
      if (!first.defined()) first = out;
      EXPECT_TRUE(out.equal(first)) << "pieces of " << piece << " give other bits";
    }
    EXPECT_EQ(difference(first, whole) > 2e-4, dtype == at::kBFloat16);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Attention, testing::Values(std::tuple(2, 2, 5), std::tuple(4, 2, 64), std::tuple(6, 1, 100), std::tuple(3, 3, 130)));

TEST(CachedAttention, KeepsSequencesOfOneStepApart) {
  const AttentionShape shape{2, 1, 8};
  const RotaryTable rotary(32, 8, 10000);
  at::NoGradGuard no_grad;
  at::manual_seed(1);
  const Tensor a = at::randn({3, shape.row()}), b = at::randn({20, shape.row()});
  const std::vector<int32_t> first = {1}, second = {2, 0};
  const auto alone = [&](const Tensor& rows) {
    Cache cache(3, shape);
    const SequenceRows part{second, 0, static_cast<int>(rows.size(0))};
    return cached_attention(rows.clone(), shape, rotary, std::span(&part, 1), cache.k, cache.v);
  };
  Cache cache(3, shape);
  const SequenceRows both[] = {{first, 0, 3}, {second, 0, 20}};
  EXPECT_LT(difference(cached_attention(at::cat({a, b}), shape, rotary, both, cache.k, cache.v), at::cat({alone(a), alone(b)})), 1e-6);
}

TEST(CachedAttention, ASequenceMayShareAPageThatAnotherOneFillsInTheSameStep) {
  const AttentionShape shape{2, 1, 8};
  const RotaryTable rotary(32, 8, 10000);
  at::NoGradGuard no_grad;
  at::manual_seed(2);
  const Tensor rows = at::randn({18, shape.row()});
  const std::vector<int32_t> own = {0, 1}, sharing = {0, 2};
  Cache cache(3, shape);
  // The one that shares comes first in the step.
  const SequenceRows both[] = {{sharing, 16, 2}, {own, 0, 18}};
  const Tensor out = cached_attention(at::cat({rows.narrow(0, 16, 2), rows}), shape, rotary, both, cache.k, cache.v);
  EXPECT_LT(difference(out.narrow(0, 0, 2), out.narrow(0, 18, 2)), 1e-5);
}

TEST(CachedAttention, RefusesPagesThatAreNotThereOrTooFew) {
  const AttentionShape shape{2, 1, 8};
  const RotaryTable rotary(32, 8, 10000);
  Cache cache(2, shape);
  const std::vector<int32_t> beyond = {2}, few = {1};
  const SequenceRows bad[] = {{beyond, 0, 1}, {few, 16, 1}};
  for (const SequenceRows& part : bad) {
    EXPECT_THROW(cached_attention(at::zeros({1, shape.row()}), shape, rotary, std::span(&part, 1), cache.k, cache.v), Bug);
  }
}

TEST(Adamw, EqualsTheFormulaInFloat64) {
  at::manual_seed(5);
  Tensor w = at::randn({1000}), m = at::zeros({1000}), v = at::zeros({1000});
  Tensor wd = w.to(at::kDouble), md = m.to(at::kDouble), vd = v.to(at::kDouble);
  for (int step = 1; step <= 5; ++step) {
    const Tensor g = at::randn({1000});
    adamw(w.data_ptr<float>(), g.data_ptr<float>(), m.data_ptr<float>(), v.data_ptr<float>(), 1000,
          {.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f, .gradient_scale = 0.5f, .step = step});
    const Tensor gd = g.to(at::kDouble) * 0.5;
    md = 0.9 * md + 0.1 * gd;
    vd = 0.95 * vd + 0.05 * gd * gd;
    wd = wd * (1 - 0.01 * 0.1) - 0.01 * (md / (1 - std::pow(0.9, step))) / ((vd / (1 - std::pow(0.95, step))).sqrt() + 1e-8);
  }
  EXPECT_LT((w.to(at::kDouble) - wd).abs().max().item<double>(), 2e-6);
}

TEST(Lamb, EqualsTheFormulaInFloat64) {
  at::manual_seed(6);
  Tensor w = at::randn({5000}), m = at::zeros({5000}), v = at::zeros({5000});
  Tensor wd = w.to(at::kDouble), md = m.to(at::kDouble), vd = v.to(at::kDouble);
  for (int step = 1; step <= 5; ++step) {
    const Tensor g = at::randn({5000});
    const AdamStep s{.lr = 0.01f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-6f, .weight_decay = 0.1f, .gradient_scale = 0.5f, .step = step};
    const SquareSums sums = lamb_moments(w.data_ptr<float>(), g.data_ptr<float>(), m.data_ptr<float>(), v.data_ptr<float>(), 5000, s);
    const double trust = std::sqrt(sums.weights) / std::sqrt(sums.update);
    lamb_update(w.data_ptr<float>(), m.data_ptr<float>(), v.data_ptr<float>(), 5000, s, static_cast<float>(trust));
    const Tensor gd = g.to(at::kDouble) * 0.5;
    md = 0.9 * md + 0.1 * gd;
    vd = 0.95 * vd + 0.05 * gd * gd;
    const Tensor u = (md / (1 - std::pow(0.9, step))) / ((vd / (1 - std::pow(0.95, step))).sqrt() + 1e-6) + 0.1 * wd;
    EXPECT_NEAR(trust, (wd.norm() / u.norm()).item<double>(), 1e-5 * trust);
    wd = wd - 0.01 * (wd.norm() / u.norm()) * u;
  }
  EXPECT_LT((w.to(at::kDouble) - wd).abs().max().item<double>(), 5e-6);
}

TEST(MomentumSgd, EqualsTheFormulaInFloat64) {
  at::manual_seed(7);
  Tensor w = at::randn({1000}), m = at::zeros({1000});
  Tensor wd = w.to(at::kDouble), md = m.to(at::kDouble);
  for (int step = 0; step < 5; ++step) {
    const Tensor g = at::randn({1000});
    momentum_sgd(w.data_ptr<float>(), g.data_ptr<float>(), m.data_ptr<float>(), 1000, {.lr = 0.1f, .momentum = 0.9f, .weight_decay = 0.01f, .gradient_scale = 2, .lr_scale = 0.5f});
    md = 0.9 * md + 0.5 * (2 * g.to(at::kDouble) + 0.01 * wd);
    wd = wd - 0.1 * md;
  }
  EXPECT_LT((w.to(at::kDouble) - wd).abs().max().item<double>(), 5e-6);
}

}  // namespace
}  // namespace penstock::kernels
