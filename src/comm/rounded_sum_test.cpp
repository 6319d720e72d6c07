// What rounding does to training, and error feedback against it: two ranks pull a weight in opposite directions, so that large gradients nearly cancel.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "comm/communicator.h"
#include "comm/spawn_ranks.h"

namespace penstock::comm {
namespace {

enum class How { kFloat32, kRounded, kRoundedWithoutMemory };

// The largest distance from the optimum, relative to the pull, after gradient descent on the sum of 0.5 · |w - target_r|² over two ranks.
double distance_after_training(How how) {
  double distance = 0;
  spawn_ranks(2, [&](Communicator& ranks) {
    constexpr int64_t kCount = 1'000;
    const at::Tensor spread = at::linspace(1, 2, kCount, at::kFloat), middle = at::linspace(-0.01, 0.01, kCount, at::kFloat);
    const at::Tensor target = middle + spread * (ranks.rank() == 0 ? 1 : -1.01);
    const at::Tensor optimum = middle - spread * 0.005;
    at::Tensor weight = at::zeros({kCount}), residual = at::zeros({kCount});
    for (int step = 0; step < 1'500; ++step) {
      at::Tensor gradient = weight - target;
      if (how == How::kRoundedWithoutMemory) residual.zero_();
      const WorkPtr work = how == How::kFloat32 ? ranks.all_reduce(gradient, Reduce::kSum) : ranks.all_reduce_rounded(gradient, residual);
      work->wait(Deadline::after(seconds(60)));
      weight = weight - 0.005 * gradient;
    }
    if (ranks.rank() == 0) distance = ((weight - optimum) / spread).abs().max().item<double>();
  });
  return distance;
}

TEST(RoundedSum, TrainsAsWellAsFloat32WithErrorFeedbackAndNotWithout) {
  const double exact = distance_after_training(How::kFloat32);
  const double rounded = distance_after_training(How::kRounded);
  const double forgetful = distance_after_training(How::kRoundedWithoutMemory);
  EXPECT_LT(exact, 1e-4);
  EXPECT_LT(rounded, 1e-4) << "fp32: " << exact;
  EXPECT_GT(forgetful, 5e-4) << "otherwise this test shows nothing";
}

}  // namespace
}  // namespace penstock::comm
