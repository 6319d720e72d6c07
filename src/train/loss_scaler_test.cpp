// The scale of the loss in float16: alone, and in training on the CPU, which rounds as a GPU computes.
#include "train/loss_scaler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/mutex.h"
#include "train/pipeline_trainer.h"
#include "train/train_case_test.h"

namespace penstock::train {
namespace {

TEST(LossScaler, HalvesAtAnOverflowAndDoublesAfterGoodSteps) {
  LossScaler scaler(true, {.first_scale = 16, .growth_steps = 3});
  EXPECT_EQ(scaler.took(), 1);
  EXPECT_EQ(scaler.took(), 1);
  EXPECT_TRUE(scaler.overflowed());
  EXPECT_EQ(scaler.scale(), 8);
  EXPECT_EQ(scaler.took(), 1) << "an overflow starts the count anew";
  EXPECT_EQ(scaler.took(), 1);
  EXPECT_EQ(scaler.took(), 2);
  EXPECT_EQ(scaler.scale(), 16);
  EXPECT_EQ(scaler.state().overflows, 1);
}

TEST(LossScaler, ACheckpointKeepsWhereItIs) {
  LossScaler scaler(true, {.first_scale = 16, .growth_steps = 3}), other(true, {.first_scale = 1024, .growth_steps = 3});
  EXPECT_TRUE(scaler.overflowed());
  EXPECT_EQ(scaler.took(), 1);
  other.restore(scaler.state());
  EXPECT_EQ(other.scale(), 8);
  EXPECT_EQ(other.took(), 1);
  EXPECT_EQ(other.took(), 2);
  EXPECT_EQ(other.state().overflows, 1);
  LossScaler after_fp32(true, {.first_scale = 1024, .growth_steps = 3});
  after_fp32.restore(LossScaler(false, {}).state());
  EXPECT_EQ(after_fp32.scale(), 1024) << "a run in fp32 has no scale to give";
}

TEST(LossScaler, AnOverflowAtAScaleOfOneIsNotTheScales) {
  LossScaler least(true, {.first_scale = 1, .growth_steps = 3}), none(false, {});
  EXPECT_FALSE(least.overflowed());
  EXPECT_FALSE(none.overflowed());
  EXPECT_EQ(none.scale(), 1);
}

class Fp16Training : public TrainCase {
 protected:
  [[nodiscard]] config::TrainConfig fp16_run(const std::string& name, double first_scale) const {
    config::TrainConfig c = small_run(name);
    c.precision = config::Precision::kFloat16;
    c.fp16.first_scale = first_scale;
    c.optimizer.schedule = config::LearningRateSchedule::kConstant;
    c.batch.microbatches = 4;
    c.steps = 8;
    return c;
  }
  // The last line of a run's metrics.
  static nlohmann::json last_report(const config::TrainConfig& c) {
    std::ifstream lines(c.output + "/metrics.jsonl");
    std::string last;
    for (std::string line; std::getline(lines, line);) last = line;
    return nlohmann::json::parse(last);
  }
};

constexpr double kTooLarge = 1 << 22;  // for this model, whose gradients then do not fit into float16

TEST_F(Fp16Training, LosesAboutAsInFp32) {
  config::TrainConfig fp32 = fp16_run("fp32", 65536), fp16 = fp16_run("fp16", 65536);
  fp32.precision = config::Precision::kFloat32;
  fp32.steps = fp16.steps = 20;
  const TrainSummary expected = run(fp32), got = run(fp16);
  EXPECT_EQ(got.skipped_steps, 0);
  for (size_t i = 0; i < expected.losses.size(); ++i) EXPECT_NEAR(got.losses[i], expected.losses[i], 0.02) << "step " << i + 1;
  EXPECT_NE(got.losses, expected.losses) << "float16 operands cannot give float32's losses";
}

TEST_F(Fp16Training, AnOverflowSkipsTheStepAndHalvesTheScaleInEveryLayoutAlike) {
  const config::TrainConfig one = fp16_run("one", kTooLarge);
  const TrainSummary alone = run(one);
  EXPECT_GT(alone.overflowed_steps, 0);
  EXPECT_LT(alone.overflowed_steps, one.steps);
  EXPECT_EQ(alone.skipped_steps, alone.overflowed_steps);
  const nlohmann::json report = last_report(one);
  EXPECT_EQ(report.at("loss_scale").get<double>(), kTooLarge / std::pow(2, alone.overflowed_steps));
  EXPECT_EQ(report.at("skipped_steps").get<int64_t>(), alone.overflowed_steps);

  config::TrainConfig four = fp16_run("four", kTooLarge);
  four.mesh = {.data = 2, .pipe = 2};
  four.batch.microbatches = 2;
  four.sharding = config::Sharding::kOptimizer;
  const TrainSummary shared = run(four);
  EXPECT_EQ(shared.overflowed_steps, alone.overflowed_steps);
  EXPECT_EQ(last_report(four).at("loss_scale"), report.at("loss_scale"));
  for (size_t i = 0; i < alone.losses.size(); ++i) EXPECT_NEAR(shared.losses[i], alone.losses[i], 0.01) << "step " << i + 1;
}

TEST_F(Fp16Training, TheScaleDoublesAfterGoodSteps) {
  config::TrainConfig c = fp16_run("grows", 1024);
  c.fp16.growth_steps = 3;
  EXPECT_EQ(run(c).skipped_steps, 0);
  EXPECT_EQ(last_report(c).at("loss_scale").get<double>(), 4096) << "8 steps";
}

TEST_F(Fp16Training, ResumesAcrossAHalvingBitForBit) {
  const config::TrainConfig whole = fp16_run("whole", kTooLarge);
  const TrainSummary expected = run(whole);
  config::TrainConfig parts = fp16_run("parts", kTooLarge);
  parts.checkpoint.every_steps = 1;
  parts.steps = 1;
  std::vector<double> losses = run(parts).losses;
  EXPECT_EQ(last_report(parts).at("skipped_steps"), 1) << "the first step overflows";
  parts.steps = 8;
  const TrainSummary rest = run(parts, true);
  losses.insert(losses.end(), rest.losses.begin(), rest.losses.end());
  EXPECT_EQ(losses, expected.losses);
  EXPECT_EQ(rest.overflowed_steps, expected.overflowed_steps);
  EXPECT_EQ(last_report(parts).at("loss_scale"), last_report(whole).at("loss_scale"));
}

TEST_F(Fp16Training, RoundedReductionsForgetWhatOverflowed) {
  config::TrainConfig c = fp16_run("rounded", kTooLarge), exact = fp16_run("exact", kTooLarge);
  c.mesh.data = exact.mesh.data = 2;
  c.reduce_dtype = config::ReduceDtype::kBfloat16;
  const TrainSummary got = run(c), expected = run(exact);
  EXPECT_EQ(got.overflowed_steps, expected.overflowed_steps);
  for (size_t i = 0; i < got.losses.size(); ++i) EXPECT_NEAR(got.losses[i], expected.losses[i], 0.05) << "step " << i + 1;
}

// Remembered rounding errors have the gradients' scale: those of 2^16 would outweigh every gradient of a run that has none.
TEST_F(Fp16Training, GoesOnInFp32WithWhatRoundingTookFromItsGradients) {
  config::TrainConfig c = fp16_run("changed", 1 << 16), exact = fp16_run("exact", 1 << 16);
  for (config::TrainConfig* one : {&c, &exact}) {
    one->mesh.data = 2;
    one->reduce_dtype = config::ReduceDtype::kBfloat16;
    one->checkpoint.every_steps = 4;
    one->steps = 4;
    (void)run(*one);
    one->steps = 8;
  }
  c.precision = config::Precision::kFloat32;
  const TrainSummary changed = run(c, true), stayed = run(exact, true);
  ASSERT_EQ(changed.losses.size(), stayed.losses.size());
  for (size_t i = 0; i < stayed.losses.size(); ++i) EXPECT_NEAR(changed.losses[i], stayed.losses[i], 0.02) << "step " << i + 5;
  EXPECT_NEAR(last_report(c).at("gradient_norm").get<double>(), last_report(exact).at("gradient_norm").get<double>(), 0.05);
}

// y = x · Wᵀ
class Product : public model::Layer {
 public:
  explicit Product(std::string name) : name_(std::move(name)), weight_(at::empty({8, 8}, at::kFloat).requires_grad_(true)) {}
  model::Tensors forward(const model::Tensors& inputs, const model::ForwardContext& context) override { return {kernels::linear(inputs.at(0), weight_, context.linear)}; }
  std::vector<model::Parameter> parameters() override { return {{name_, weight_, {{name_, 0, 8}}, 0.4, true}}; }

 private:
  const std::string name_;
  at::Tensor weight_;
};

TEST(Fp16Trainer, AUsersStepThatOverflowsLeavesEveryRanksWeightsAsTheyWere) {
  comm::spawn_ranks(2, [](comm::Communicator& world) {
    TrainerOptions options;
    options.mesh.pipe = 2;
    options.microbatches = 2;
    options.compute = kernels::Compute::kFp16;
    options.fp16.first_scale = 1e12;
    std::vector<model::LayerSpec> layers;
    for (int i = 0; i < 2; ++i) layers.push_back({fmt::format("layer{}", i), "Product", 64, [i](model::SharedWeights&) { return std::make_unique<Product>(fmt::format("w{}", i)); }, {}});
    PipelineTrainer trainer(world, layers, options);
    const at::Tensor inputs = at::arange(64).to(at::kFloat).view({8, 8}).div(64), targets = inputs.flip(0);
    const auto step = [&] {
      return trainer.train_batch({inputs}, {targets}, [](const model::Tensors& y, const model::Tensors& t) { return (y[0] - t[0]).square().sum(); }, 1e-2);
    };
    const at::Tensor before = trainer.parameters().at(0).value.detach().clone();
    const StepOutcome first = step();
    EXPECT_TRUE(first.overflowed);
    EXPECT_TRUE(std::isfinite(first.loss));
    EXPECT_EQ(trainer.scaler().scale(), 5e11);
    EXPECT_TRUE(trainer.parameters().at(0).value.equal(before));
    StepOutcome last = first;
    for (int i = 0; i < 40 && last.overflowed; ++i) last = step();
    EXPECT_FALSE(last.overflowed);
    EXPECT_GT(last.gradient_norm, 0);
    EXPECT_LT(last.gradient_norm, 1e3) << "without the scale";
    EXPECT_FALSE(trainer.parameters().at(0).value.equal(before));
  });
}

}  // namespace
}  // namespace penstock::train
