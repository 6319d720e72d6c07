#include "engine/sampling_thread.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <future>

namespace penstock::engine {
namespace {

StepPlan plan_of(int slot) { return {StepKind::kCompute, {{.slot = slot, .count = 1, .samples = true}}}; }

TEST(SamplingThread, LetsTheNextStepBeginWhileItAnswersTheLast) {
  std::promise<void> next_has_begun;
  std::vector<int> answered;
  SamplingThread sampling([&](const StepPlan& plan, const at::Tensor& logits) {
    if (answered.empty()) {
      EXPECT_EQ(next_has_begun.get_future().wait_for(seconds(20)), std::future_status::ready) << "put() waited for the answer";
    }
    EXPECT_EQ(logits.item<float>(), static_cast<float>(plan.sequences[0].slot));
    answered.push_back(plan.sequences[0].slot);
  }, seconds(30));
  sampling.put(plan_of(0), at::full({1, 1}, 0.0f));
  next_has_begun.set_value();
  for (int slot = 1; slot < 10; ++slot) sampling.put(plan_of(slot), at::full({1, 1}, static_cast<float>(slot)));
  sampling.finish();
  EXPECT_EQ(answered, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})) << "in order, all of them";
}

TEST(SamplingThread, TellsItsFailureAtOnceThoughNoStepFollows) {
  std::promise<std::string> told;
  SamplingThread sampling([](const StepPlan&, const at::Tensor&) { throw std::runtime_error("no such token"); }, seconds(30),
                          [&](const Error& why) { told.set_value(why.message()); });
  sampling.put(plan_of(0), at::zeros({1, 1}));
  EXPECT_EQ(told.get_future().get(), "no such token");
}

TEST(SamplingThread, TellsItsFailure) {
  SamplingThread sampling([](const StepPlan& plan, const at::Tensor&) {
    if (plan.sequences[0].slot == 1) throw error(Code::kUnavailable, "nobody listens");
  }, seconds(30));
  for (int slot = 0; slot < 2; ++slot) sampling.put(plan_of(slot), at::zeros({1, 1}));
  try {
    sampling.finish();
    FAIL() << "finished";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kUnavailable);
    EXPECT_EQ(e.message(), "nobody listens");
  }
  EXPECT_THROW(sampling.put(plan_of(2), at::zeros({1, 1})), Error);
}

TEST(SamplingThread, AnswersWhatItHasBeforeItIsDestroyed) {
  int answered = 0;
  {
    SamplingThread sampling([&](const StepPlan&, const at::Tensor&) { ++answered; }, seconds(30));
    for (int slot = 0; slot < 20; ++slot) sampling.put(plan_of(slot), at::zeros({1, 1}));
  }
  EXPECT_EQ(answered, 20);
}

}  // namespace
}  // namespace penstock::engine
