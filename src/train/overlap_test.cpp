// When gradients are reduced: each bucket once a step, while the backward pass of the last micro-batch still runs, from the first step on.
#include <gtest/gtest.h>

#include <map>

#include "base/mutex.h"
#include "comm/forwarding_communicator.h"
#include "comm/spawn_ranks.h"
#include "train/pipeline_trainer.h"

namespace penstock::train {
namespace {

using model::LayerSpec;
using model::Tensors;

constexpr int kWidth = 64, kMicrobatches = 4, kReplicas = 2;

// Of one rank. Reductions are posted by the thread that computes, so nobody else touches it.
struct Log {
  int reductions = 0;
  std::vector<int> seen;  // reductions that a stage's backward pass found posted, by micro-batch
};
thread_local Log* log_of_this_rank = nullptr;

class Counted : public comm::ForwardingCommunicator {
 public:
  explicit Counted(std::unique_ptr<comm::Communicator> inner) : ForwardingCommunicator(*inner), owned_(std::move(inner)) {}
  comm::WorkPtr all_reduce(at::Tensor& tensor, comm::Reduce op) override {
    ++log_of_this_rank->reductions;
    return ForwardingCommunicator::all_reduce(tensor, op);
  }

 private:
  const std::unique_ptr<comm::Communicator> owned_;
};

class World : public comm::ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  std::unique_ptr<comm::Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    auto group = ForwardingCommunicator::split(ranks, name, deadline);
    return group && name.starts_with("data[") ? std::make_unique<Counted>(std::move(group)) : std::move(group);
  }
};

// x · w, element by element.
class Scale : public model::Layer {
 public:
  explicit Scale(std::string name) : name_(std::move(name)), weight_(at::empty({kWidth}, at::kFloat).requires_grad_(true)) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext&) override { return {at::tanh(inputs.at(0) * weight_)}; }
  std::vector<model::Parameter> parameters() override { return {{name_, weight_, {{name_, 0, kWidth}}, 0.5, false}}; }

 private:
  const std::string name_;
  at::Tensor weight_;
};

// Passes everything on; its backward pass notes how much has been reduced.
class Peek : public model::Layer {
 public:
  Tensors forward(const Tensors& inputs, const model::ForwardContext&) override {
    const at::Tensor y = inputs.at(0) * 1;
    if (y.requires_grad()) y.register_hook([](const at::Tensor&) { log_of_this_rank->seen.push_back(log_of_this_rank->reductions); });
    return {y};
  }
  std::vector<model::Parameter> parameters() override { return {}; }
};

// Two stages of three parameters; behind the first of each stage a Peek.
std::vector<LayerSpec> layers() {
  std::vector<LayerSpec> specs;
  for (int i = 0; i < 6; ++i) {
    specs.push_back({fmt::format("scale{}", i), "Scale", kWidth, [i](model::SharedWeights&) { return std::make_unique<Scale>(fmt::format("w{}", i)); }, {}});
    if (i % 3 == 0) specs.push_back({fmt::format("peek{}", i), "Peek", 0, [](model::SharedWeights&) { return std::make_unique<Peek>(); }, {}});
  }
  return specs;
}

at::Tensor squared_error(const Tensors& outputs, const Tensors& targets) { return (outputs.at(0) - targets.at(0)).square().sum(); }

std::vector<pipeline::Microbatch> microbatches_of(int step, int first, int count) {
  std::vector<pipeline::Microbatch> all;
  for (int i = first; i < first + count; ++i) {
    const at::Tensor x = at::randn({2, kWidth}, at::detail::createCPUGenerator(static_cast<uint64_t>(100 * step + i)));
    all.push_back({{x}, {x.abs()}});
  }
  return all;
}

TrainerOptions options_of(int pipe, int data, int microbatches) {
  TrainerOptions options;
  options.mesh = {pipe, data, 1};
  options.microbatches = microbatches;
  options.bucket_mib = 1e-6;  // a bucket for each parameter
  return options;
}

TEST(Overlap, EachBucketIsReducedOnceAStepWithinTheLastBackwardPassOfItsStage) {
  comm::spawn_ranks(2 * kReplicas, [&](comm::Communicator& world) {
    World counting(world);
    Log log;
    log_of_this_rank = &log;
    PipelineTrainer trainer(counting, layers(), options_of(2, kReplicas, kMicrobatches));
    for (int step = 0; step < 3; ++step) {
      log = {};
      (void)trainer.compute_gradients(microbatches_of(step, kMicrobatches * trainer.replica(), kMicrobatches), squared_error, 1.0);
      EXPECT_EQ(log.reductions, 3) << "step " << step;
      EXPECT_EQ(log.seen, (std::vector<int>{0, 0, 0, 2})) << "step " << step << ", rank " << world.rank();
    }
  });
}

TEST(Overlap, GradientsOfReplicasOfPipelinesAreThoseOfOneProcess) {
  std::map<std::string, at::Tensor> single;
  const auto compare = [&](int pipe, int data) {
    Mutex mutex;
    comm::spawn_ranks(pipe * data, [&](comm::Communicator& world) {
      World counting(world);
      Log log;
      log_of_this_rank = &log;
      const int each = kReplicas * kMicrobatches / data;
      PipelineTrainer trainer(counting, layers(), options_of(pipe, data, each));
      (void)trainer.compute_gradients(microbatches_of(0, each * trainer.replica(), each), squared_error, 1.0 / 16);
      MutexLock lock(mutex);
      for (const auto& p : trainer.parameters()) {
        const auto [known, is_first] = single.emplace(p.name, p.value.grad().clone());
        EXPECT_GT(p.value.grad().abs().max().item<double>(), 0) << p.name;
        EXPECT_TRUE(p.value.grad().allclose(known->second, 1e-6, 1e-7)) << p.name << ", " << pipe << " x " << data;
      }
    });
  };
  compare(1, 1);
  ASSERT_EQ(single.size(), 6u);
  compare(1, kReplicas);
  compare(2, kReplicas);
}

}  // namespace
}  // namespace penstock::train
