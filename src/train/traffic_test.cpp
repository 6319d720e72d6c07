// What a rank sends in a step, counted where messages leave it, against the volumes of ZeRO (Rajbhandari et al. 2020, section 7): 2 parameters' worth with plain
// replicas, stages 1 and 2, 3 with stage 3, of each of which a rank sends the (n - 1) / n that are not its own.
#include <gtest/gtest.h>

#include <map>

#include "base/mutex.h"
#include "comm/contract_ranks_test.h"
#include "comm/forwarding_communicator.h"
#include "kernels/linear.h"
#include "train/pipeline_trainer.h"

namespace penstock::train {
namespace {

using config::Sharding;
using model::Tensors;

constexpr int64_t kWidth = 96;  // tensors of 16 KiB at most are sent otherwise
constexpr int kLayers = 16;

class Dense : public model::Layer {
 public:
  explicit Dense(std::string name) : name_(std::move(name)), weight_(at::empty({kWidth, kWidth}, at::kFloat).requires_grad_(true)) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override { return {at::tanh(kernels::linear(inputs.at(0), weight_, context.linear))}; }
  std::vector<model::Parameter> parameters() override { return {{name_, weight_, {{name_, 0, kWidth}}, 0.1, true}}; }

 private:
  const std::string name_;
  at::Tensor weight_;
};

std::vector<model::LayerSpec> layers() {
  std::vector<model::LayerSpec> specs;
  for (int i = 0; i < kLayers; ++i) {
    specs.push_back({fmt::format("dense{}", i), "Dense", kWidth * kWidth, [i](model::SharedWeights&) { return std::make_unique<Dense>(fmt::format("dense{}", i)); }, {}});
  }
  return specs;
}

at::Tensor squared_error(const Tensors& outputs, const Tensors& targets) { return (outputs.at(0) - targets.at(0)).square().sum(); }

// Keeps the group of replicas in sight.
class World : public comm::ForwardingCommunicator {
 public:
  using ForwardingCommunicator::ForwardingCommunicator;
  std::unique_ptr<comm::Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    auto group = ForwardingCommunicator::split(ranks, name, deadline);
    if (group && name.starts_with("data[")) replicas = group.get();
    return group;
  }
  comm::Communicator* replicas = nullptr;
};

// Of every rank, in the third step: buckets have found their order by then. In bytes a parameter.
std::vector<double> sent_in_a_step(int replicas, Sharding sharding, config::ReduceDtype dtype = config::ReduceDtype::kFloat32) {
  std::vector<double> sent;
  Mutex mutex;
  comm::spawn_c10d_ranks(replicas, 1, [&](comm::Communicator& connected) {
    World world(connected);
    TrainerOptions options;
    options.mesh.data = replicas;
    options.microbatches = 1;
    options.sharding = sharding;
    options.reduce_dtype = dtype;
    options.bucket_mib = 0.1;
    PipelineTrainer trainer(world, layers(), options);
    int64_t before = 0;
    for (int step = 0; step < 3; ++step) {
      before = world.replicas->bytes_sent();
      const at::Tensor x = at::randn({2, kWidth}, at::detail::createCPUGenerator(static_cast<uint64_t>(10 * step + trainer.replica())));
      (void)trainer.train_batch({x}, {x.abs()}, squared_error, 1e-2);
    }
    const double bytes = static_cast<double>(world.replicas->bytes_sent() - before);
    connected.barrier()->wait(trainer.deadline());
    MutexLock lock(mutex);
    sent.push_back(bytes / (kLayers * kWidth * kWidth));
  });
  return sent;
}

TEST(Traffic, OfAStepIsThatOfTheFormulas) {
  const std::map<Sharding, double> volumes = {{Sharding::kNone, 2}, {Sharding::kOptimizer, 2}, {Sharding::kGradients, 2}, {Sharding::kParameters, 3}};
  for (const int replicas : {2, 4}) {
    for (const auto& [sharding, volume] : volumes) {
      const double expected = 4 * volume * (replicas - 1) / replicas;
      for (const double sent : sent_in_a_step(replicas, sharding)) {
        EXPECT_NEAR(sent, expected, 0.05 * expected) << "sharding " << static_cast<int>(sharding) << " on " << replicas << " replicas";
      }
    }
  }
}

// Sums are rounded both ways, and weights are not: with the optimizer's state sharded a step sends as much as in float32.
TEST(Traffic, OfRoundedGradientsIsHalf) {
  for (const double sent : sent_in_a_step(2, Sharding::kNone, config::ReduceDtype::kBfloat16)) EXPECT_NEAR(sent, 2, 0.1);
  for (const double sent : sent_in_a_step(2, Sharding::kOptimizer, config::ReduceDtype::kBfloat16)) EXPECT_NEAR(sent, 4, 0.2);
}

}  // namespace
}  // namespace penstock::train
