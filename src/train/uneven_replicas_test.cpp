// Replicas that do not all do the same: branches that one of them takes, data that runs out on one before another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/mutex.h"
#include "comm/spawn_ranks.h"
#include "kernels/linear.h"
#include "train/pipeline_trainer.h"

namespace penstock::train {
namespace {

using config::Sharding;
using model::Tensors;

constexpr Sharding kShardings[] = {Sharding::kNone, Sharding::kOptimizer, Sharding::kGradients, Sharding::kParameters};

// y = tanh(x · Wᵀ), and, for inputs whose sum is negative, another weight.
class Branch : public model::Layer {
 public:
  explicit Branch(int index) : name_(fmt::format("layer{}", index)), usual_(make()), rare_(make()) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    const at::Tensor& x = inputs.at(0);
    const bool rare = x.sum().item<float>() < 0;
    return {at::tanh(kernels::linear(x, rare ? rare_ : usual_, context.linear)) + x};
  }
  std::vector<model::Parameter> parameters() override {
    return {{name_ + ".usual", usual_, {{name_ + ".usual", 0, 8}}, 0.1, true}, {name_ + ".rare", rare_, {{name_ + ".rare", 0, 8}}, 0.1, true}};
  }

 private:
  static at::Tensor make() { return at::empty({8, 8}, at::kFloat).requires_grad_(true); }
  const std::string name_;
  at::Tensor usual_, rare_;
};

std::vector<model::LayerSpec> layers() {
  std::vector<model::LayerSpec> specs;
  for (int i = 0; i < 4; ++i) specs.push_back({fmt::format("layer{}", i), "Branch", 128, [i](model::SharedWeights&) { return std::make_unique<Branch>(i); }, {}});
  return specs;
}

at::Tensor squared_error(const Tensors& outputs, const Tensors& targets) { return (outputs.at(0) - targets.at(0)).square().sum(); }

// Every row has the same sign as the others of its row number's parity: `sign` of each row.
at::Tensor rows(std::vector<float> signs, int step) {
  at::Tensor x = at::rand({static_cast<int64_t>(signs.size()), 8}, at::detail::createCPUGenerator(static_cast<uint64_t>(step))) + 0.1;
  return x * at::tensor(signs).unsqueeze(1);
}

using Weights = std::map<std::string, at::Tensor>;
struct Outcomes {
  Weights weights;
  std::vector<StepOutcome> outcomes;
};

// One step for each list: the signs of each replica's rows, or of all rows where there is one replica.
Outcomes train(const TrainerOptions& options, const std::vector<std::vector<std::vector<float>>>& steps) {
  Outcomes run;
  Mutex mutex;
  comm::spawn_ranks(options.mesh.size(), [&](comm::Communicator& world) {
    PipelineTrainer trainer(world, layers(), options);
    for (size_t step = 0; step < steps.size(); ++step) {
      std::vector<float> all;
      for (const auto& part : steps[step]) all.insert(all.end(), part.begin(), part.end());
      at::Tensor x = rows(all, static_cast<int>(step));
      if (options.mesh.data > 1) {
        int64_t first = 0;
        for (int r = 0; r < trainer.replica(); ++r) first += std::ssize(steps[step][static_cast<size_t>(r)]);
        x = x.narrow(0, first, std::ssize(steps[step][static_cast<size_t>(trainer.replica())]));
      }
      const StepOutcome outcome = trainer.train_batch({x}, {x.abs()}, squared_error, 1e-2);
      MutexLock lock(mutex);
      if (world.rank() == 0) run.outcomes.push_back(outcome);
    }
    for (size_t i = 0; i < trainer.parameters().size(); ++i) {
      const at::Tensor value = trainer.shards().whole_value(i, trainer.deadline()).clone();
      MutexLock lock(mutex);
      run.weights[trainer.parameters()[i].name] = value;
    }
  });
  return run;
}

void expect_near(const Outcomes& got, const Outcomes& expected) {
  ASSERT_EQ(got.weights.size(), expected.weights.size());
  for (const auto& [name, weight] : expected.weights) EXPECT_TRUE(at::allclose(got.weights.at(name), weight, 1e-4, 1e-6)) << name;
  ASSERT_EQ(got.outcomes.size(), expected.outcomes.size());
  for (size_t i = 0; i < got.outcomes.size(); ++i) {
    EXPECT_NEAR(got.outcomes[i].loss, expected.outcomes[i].loss, 1e-5 * expected.outcomes[i].loss) << "step " << i;
    EXPECT_EQ(got.outcomes[i].items, expected.outcomes[i].items) << "step " << i;
  }
}

TrainerOptions mesh(int pipe, int data, int microbatches, Sharding sharding, const char* schedule = "1f1b") {
  TrainerOptions options;
  options.mesh = {pipe, data, 1};
  options.microbatches = microbatches;
  options.sharding = sharding;
  options.schedule = schedule;
  options.bucket_mib = 0.001;  // a parameter or two each
  return options;
}

TEST(UnevenReplicas, BranchesThatOneReplicaTakesGetTheRightGradient) {
  // Rows of one sign on a replica: the micro-batches of one process are the replicas' batches.
  const std::vector<std::vector<std::vector<float>>> steps = {{{1, 1}, {-1, -1}}, {{-1, -1}, {1, 1}}, {{1, 1}, {1, 1}}, {{-1, -1}, {1, 1}}};
  const Outcomes one = train(mesh(1, 1, 2, Sharding::kNone), steps);
  for (const Sharding sharding : kShardings) {
    for (const int pipe : {1, 2}) {
      SCOPED_TRACE(fmt::format("stage {} on {} pipe ranks", static_cast<int>(sharding), pipe));
      expect_near(train(mesh(pipe, 2, 1, sharding), steps), one);
      expect_near(train(mesh(pipe, 2, 2, sharding, "zb-h1"), steps), one);
    }
  }
}

TEST(UnevenReplicas, AnUnusedParameterIsNamedWithItsRankOnEveryRankWhereThatIsAskedFor) {
  for (const Sharding sharding : kShardings) {
    std::vector<std::string> messages(4);
    Mutex mutex;
    comm::spawn_ranks(4, [&](comm::Communicator& world) {
      TrainerOptions options = mesh(2, 2, 1, sharding);
      options.unused_parameters = config::UnusedParameters::kError;
      PipelineTrainer trainer(world, layers(), options);
      const at::Tensor x = rows({1, 1}, 0);
      try {
        (void)trainer.train_batch({x}, {x}, squared_error, 1e-2);
      } catch (const Error& e) {
        MutexLock lock(mutex);
        messages[static_cast<size_t>(world.rank())] = e.message();
      }
    });
    for (const std::string& message : messages) EXPECT_THAT(message, testing::HasSubstr("parameter 'layer0.rare' got no gradient on rank 0"));
  }
}

TEST(UnevenReplicas, AReplicaWhoseDataHasRunOutJoinsTheOthersSteps) {
  const std::vector<std::vector<std::vector<float>>> steps = {{{1, 1, 1}, {1, 1}}, {{1, 1, 1}, {}}, {{}, {1}}, {{1}, {}}};
  const Outcomes one = train(mesh(1, 1, 1, Sharding::kNone), steps);
  for (const Sharding sharding : kShardings) {
    for (const int pipe : {1, 2}) {
      SCOPED_TRACE(fmt::format("stage {} on {} pipe ranks", static_cast<int>(sharding), pipe));
      expect_near(train(mesh(pipe, 2, 2, sharding), steps), one);  // also batches of fewer rows than micro-batches
      expect_near(train(mesh(pipe, 2, 2, sharding, "zb-h1"), steps), one);
    }
  }
}

TEST(UnevenReplicas, NothingIsUpdatedWhenNobodyHasARowLeft) {
  const Outcomes some = train(mesh(1, 2, 2, Sharding::kNone), {{{1, 1}, {1, 1}}}), more = train(mesh(1, 2, 2, Sharding::kNone), {{{1, 1}, {1, 1}}, {{}, {}}});
  EXPECT_EQ(more.outcomes[0].items, 32);
  EXPECT_EQ(more.outcomes[1].items, 0);
  for (const auto& [name, weight] : some.weights) EXPECT_TRUE(more.weights.at(name).equal(weight)) << name;
}

TEST(UnevenReplicas, EvaluationSeesEachOfAnUnevenNumberOfSamplesOnce) {
  constexpr int kSamples = 101, kBatch = 5;
  for (const Sharding sharding : kShardings) {
    // Of two pipe ranks the second has the outputs.
    const int pipe = sharding == Sharding::kOptimizer || sharding == Sharding::kParameters ? 2 : 1, replicas = 4;
    std::vector<int> seen(kSamples);
    Mutex mutex;
    comm::spawn_ranks(pipe * replicas, [&](comm::Communicator& world) {
      PipelineTrainer trainer(world, layers(), mesh(pipe, replicas, 3, sharding));
      // Sample i is on replica i % 4 and begins with its number.
      std::vector<int64_t> mine;
      for (int64_t i = trainer.replica(); i < kSamples; i += replicas) mine.push_back(i);
      at::Tensor x = at::zeros({std::ssize(mine), 8});
      for (int64_t row = 0; row < std::ssize(mine); ++row) x[row][0] = static_cast<float>(mine[static_cast<size_t>(row)]);
      const at::Tensor expected_outputs = x;
      for (int64_t first = 0; first < (kSamples + replicas - 1) / replicas; first += kBatch) {
        const int64_t count = std::clamp(std::ssize(mine) - first, int64_t{0}, int64_t{kBatch});
        const Tensors outputs = trainer.eval_batch({x.narrow(0, std::min(first, std::ssize(mine)), count)});
        EXPECT_EQ(outputs.empty(), count == 0 || !trainer.has_last_stage());
        if (outputs.empty()) continue;
        ASSERT_EQ(outputs[0].size(0), count);
        MutexLock lock(mutex);
        for (int64_t row = 0; row < count; ++row) {
          const double residual = outputs[0][row][0].item<double>() - static_cast<double>(mine[static_cast<size_t>(first + row)]);
          EXPECT_LE(std::abs(residual), 4.0) << "four layers add at most one each";
          ++seen[static_cast<size_t>(mine[static_cast<size_t>(first + row)])];
        }
      }
    });
    for (const int times : seen) EXPECT_EQ(times, 1);
  }
}

}  // namespace
}  // namespace penstock::train
