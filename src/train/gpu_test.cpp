// Training on a GPU against training on the CPU. Ranks are threads that share the first GPU, or take one each where there are several.
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/device.h"
#include "train/pipeline_trainer.h"
#include "train/train_case_test.h"

namespace penstock::train {
namespace {

class GpuTraining : public TrainCase {
 protected:
  void SetUp() override {
    if (tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
  }

  // Four micro-batches a step on one rank.
  [[nodiscard]] config::TrainConfig on(const std::string& device, const std::string& name) const {
    config::TrainConfig c = small_run(name);
    c.device = device;
    c.batch.microbatches = 4;
    c.steps = 8;
    c.optimizer.schedule = config::LearningRateSchedule::kConstant;
    return c;
  }
  [[nodiscard]] config::TrainConfig of_replicas(config::Sharding sharding, const std::string& name) const {
    config::TrainConfig c = on("cuda", name);
    c.mesh.data = 2;
    c.batch.microbatches = 2;
    c.bucket_mib = 0.01;
    c.sharding = sharding;
    return c;
  }

  static void expect_near(const TrainSummary& got, const TrainSummary& expected, double tolerance, const char* what) {
    ASSERT_EQ(got.losses.size(), expected.losses.size()) << what;
    for (size_t i = 0; i < got.losses.size(); ++i) EXPECT_NEAR(got.losses[i], expected.losses[i], tolerance) << what << ", step " << i + 1;
    EXPECT_NEAR(got.validation_loss, expected.validation_loss, tolerance) << what;
  }
};

constexpr double kRounding = 5e-4;  // nats per token, over a few steps of AdamW

TEST_F(GpuTraining, LosesAsOnTheCpuInEveryLayout) {
  const TrainSummary cpu = run(on("cpu", "cpu"));
  const TrainSummary gpu = run(on("cuda", "gpu"));
  expect_near(gpu, cpu, kRounding, "one rank");
  EXPECT_GT(gpu.memory.gpu_bytes, 0);

  config::TrainConfig pipe = on("cuda", "pipe");
  pipe.mesh.pipe = 2;
  expect_near(run(pipe), cpu, kRounding, "two stages");
  pipe.schedule = "zb-h1";
  pipe.output += "-split";
  expect_near(run(pipe), cpu, kRounding, "two stages, weight gradients apart");
  pipe.schedule = "1f1b";
  pipe.activation_checkpoint_layers = 1;
  pipe.output += "-again";
  expect_near(run(pipe), cpu, kRounding, "two stages, layers computed again");

  expect_near(run(of_replicas(config::Sharding::kNone, "replicas")), cpu, kRounding, "two replicas");
  expect_near(run(of_replicas(config::Sharding::kOptimizer, "zero1")), cpu, kRounding, "two replicas, ZeRO 1");
  expect_near(run(of_replicas(config::Sharding::kGradients, "zero2")), cpu, kRounding, "two replicas, ZeRO 2");
  expect_near(run(of_replicas(config::Sharding::kParameters, "zero3")), cpu, kRounding, "two replicas, ZeRO 3");
}

TEST_F(GpuTraining, EveryOptimizerLosesAsOnTheCpu) {
  for (const auto name : {config::OptimizerName::kSgd, config::OptimizerName::kLamb, config::OptimizerName::kLars}) {
    config::TrainConfig cpu = on("cpu", fmt::format("cpu{}", static_cast<int>(name))), gpu = on("cuda", fmt::format("gpu{}", static_cast<int>(name)));
    cpu.optimizer.name = gpu.optimizer.name = name;
    expect_near(run(gpu), run(cpu), kRounding, "one rank");
  }
}

TEST_F(GpuTraining, DocumentsApartLoseAsOnTheCpu) {
  config::TrainConfig cpu = on("cpu", "cpu"), gpu = on("cuda", "gpu");
  cpu.data.packing = gpu.data.packing = config::DataPacking::kDocument;
  expect_near(run(gpu), run(cpu), kRounding, "one rank");
}

TEST_F(GpuTraining, ACheckpointGoesFromTheGpuToTheCpuAndBack) {
  config::TrainConfig whole = on("cpu", "whole"), parts = on("cuda", "parts");
  whole.steps = 9;
  parts.checkpoint.every_steps = 3;
  std::vector<double> losses;
  for (const char* device : {"cuda", "cpu", "cuda"}) {
    parts.device = device;
    parts.steps = losses.empty() ? 3 : parts.steps + 3;
    const TrainSummary part = run(parts, !losses.empty());
    losses.insert(losses.end(), part.losses.begin(), part.losses.end());
  }
  const TrainSummary expected = run(whole);
  ASSERT_EQ(losses.size(), expected.losses.size());
  for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], expected.losses[i], kRounding) << "step " << i + 1;
}

TEST_F(GpuTraining, Bf16LosesAboutAsMuch) {
  config::TrainConfig bf16 = on("cuda", "bf16");
  bf16.precision = config::Precision::kBfloat16;
  bf16.steps = 20;
  config::TrainConfig fp32 = on("cuda", "fp32");
  fp32.steps = 20;
  expect_near(run(bf16), run(fp32), 0.1, "bf16");
}

// y = relu(x · Wᵀ)
class Dense : public model::Layer {
 public:
  explicit Dense(std::string name) : name_(std::move(name)), weight_(at::empty({8, 8}, at::kFloat).requires_grad_(true)) {}
  model::Tensors forward(const model::Tensors& inputs, const model::ForwardContext& context) override {
    return {at::relu(kernels::linear(inputs.at(0), weight_, context.linear))};
  }
  std::vector<model::Parameter> parameters() override { return {{name_, weight_, {{name_, 0, 8}}, 0.4, true}}; }

 private:
  const std::string name_;
  at::Tensor weight_;
};

TEST_F(GpuTraining, UsersLayersTrainAndEvaluateThere) {
  const auto losses = [](at::Device device, plan::Topology mesh) {
    std::vector<double> all;
    comm::spawn_ranks(mesh.size(), [&](comm::Communicator& world) {
      TrainerOptions options;
      options.mesh = mesh;
      options.device = device;
      options.microbatches = 2;
      std::vector<model::LayerSpec> layers;
      for (int i = 0; i < 4; ++i) layers.push_back({fmt::format("dense{}", i), "Dense", 64, [i](model::SharedWeights&) { return std::make_unique<Dense>(fmt::format("w{}", i)); }, {}});
      PipelineTrainer trainer(world, layers, options);
      at::manual_seed(5);
      const at::Tensor inputs = at::arange(64).to(at::kFloat).view({8, 8}).div(64), targets = inputs.flip(0);
      const int64_t rows = 8 / mesh.data, first = trainer.replica() * rows;
      for (int step = 0; step < 5; ++step) {
        const auto outcome = trainer.train_batch({inputs.narrow(0, first, rows)}, {targets.narrow(0, first, rows)},
                                                 [](const model::Tensors& y, const model::Tensors& t) { return (y[0] - t[0]).square().sum(); }, 1e-2);
        if (world.rank() == 0) all.push_back(outcome.loss);
      }
      const model::Tensors outputs = trainer.eval_batch({inputs.narrow(0, first, rows)});
      if (trainer.has_last_stage()) {
        EXPECT_EQ(outputs.at(0).size(0), rows);
        EXPECT_EQ(outputs.at(0).device().type(), device.type());
      }
    });
    return all;
  };
  const auto expected = losses(at::kCPU, {});
  for (const plan::Topology mesh : {plan::Topology{.pipe = 1, .data = 1}, plan::Topology{.pipe = 2, .data = 2}}) {
    const auto got = losses(at::Device(at::kCUDA, 0), mesh);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-5) << "step " << i + 1 << ", " << mesh.size() << " ranks";
  }
}

using DeviceOfTraining = TrainCase;

TEST_F(DeviceOfTraining, WhatARankComputesInIsNamed) {
  config::TrainConfig c = small_run("named");
  c.device = "cpu";
  c.precision = config::Precision::kBfloat16;
  EXPECT_EQ(computes_in(c, 0), "bf16 on cpu");
}

TEST_F(DeviceOfTraining, AGpuThatIsNotThereIsRefusedWithWhatToTry) {
  if (tensor::num_gpus() > 0) GTEST_SKIP() << "there is a GPU";
  config::TrainConfig c = small_run("none");
  c.device = "cuda";
  try {
    (void)run(c);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kFailedPrecondition);
    EXPECT_NE(e.message().find("device 'cuda': found 0 GPU(s)"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace penstock::train
