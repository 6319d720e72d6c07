// Replicas of a perceptron against one process: what has to be equal to the bit, and what nearly.
//
// What data parallelism must keep, and the tests that say so (processes/ and resume/ are in tests/):
//   two replicas = accumulation, bitwise; three, four nearly   TwoReplicasEqual…, ThreeAndFourReplicas…; TrainTest.TwoReplicasEqualTwoStepAccumulationBitwise
//   replicas = one batch in one piece, nearly                  ReplicasNearlyEqualOneBatchInOnePiece
//   all ranks agree after every step                           AllRanksHaveTheSameBitsAfterEveryStep
//   overlap and bucket sizes change nothing                    BucketSizeChangesNoBitOfTwoReplicas; DataParallelReducer.ReducingAfterTheBackwardPassGivesTheSameBits
//   accumulation reduces once a step, within its last backward Overlap.EachBucketIsReducedOnce…, GradientsOfReplicas…; EveryStageReducesEachBucketOnce…
//   replicas of pipelines; the norm over stages and shards     ReplicasOfPipelinesFollow…; Sharding.EveryStageFollows…
//   the loss is the mean over all items                        LossIsTheMeanOverTheItemsOfAllReplicasHoweverTheyAreSpread
//   parameters that some replicas leave out                    UnevenReplicas.BranchesThatOneReplicaTakes…, AnUnusedParameterIsNamed…
//   uneven data                                                UnevenReplicas.AReplicaWhoseDataHasRunOut…, EvaluationSeesEach…
//   sharded = plain, bitwise on two                            Sharding.EveryStageEqualsPlainReplicasBitwiseOnTwo; TrainTest.AShardedOptimizerChangesNoBit
//   exact resume                                               TrainTest.AResumedRunEqualsAnUninterruptedOneBitwise, ARunThatSkipsSpikesResumesBitwise
//   another layout loads it, bitwise                           CheckpointLayouts.AnyLoadsAnyOtherBitwise, FourReplicas…; TrainTest.ACheckpointLoadsIntoAnyLayoutBitwise
//   torn checkpoints, dead ranks                               processes/train: a_checkpoint_torn_by_kill…, a_killed_rank_is_named…; TrainTest.ATornCheckpoint…
//   NaN on one rank                                            ALossThatIsNotANumberOnOneReplica…; TrainTest.StopsAllRanks…, SkipsSteps…
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/crc32.h"
#include "base/mutex.h"
#include "comm/spawn_ranks.h"
#include "kernels/linear.h"
#include "train/pipeline_trainer.h"

namespace penstock::train {
namespace {

using model::LayerSpec;
using model::Tensors;

constexpr int kWidth = 256, kClasses = 10, kSamples = 32;

// tanh(x · Wᵀ + b), or without tanh at the end. Lists the bias first, and uses it last.
class Dense : public model::Layer {
 public:
  Dense(std::string name, int64_t in, int64_t out, bool last)
      : name_(std::move(name)), last_(last), weight_(at::empty({out, in}, at::kFloat).requires_grad_(true)), bias_(at::empty({out}, at::kFloat).requires_grad_(true)) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    const at::Tensor y = kernels::linear(inputs.at(0), weight_, context.linear) + bias_;
    return {last_ ? y : at::tanh(y)};
  }
  std::vector<model::Parameter> parameters() override {
    return {{name_ + ".bias", bias_, {{name_ + ".bias", 0, bias_.size(0)}}, 0.01, false},
            {name_ + ".weight", weight_, {{name_ + ".weight", 0, weight_.size(0)}}, 1.0 / 16, true}};
  }

 private:
  const std::string name_;
  const bool last_;
  at::Tensor weight_, bias_;
};

std::vector<LayerSpec> perceptron() {
  std::vector<LayerSpec> specs;
  for (int i = 0; i < 7; ++i) {
    const int64_t out = i < 6 ? kWidth : kClasses;
    specs.push_back({fmt::format("dense{}", i), "Dense", out * (kWidth + 1),
                     [i, out](model::SharedWeights&) { return std::make_unique<Dense>(fmt::format("dense{}", i), kWidth, out, i == 6); }, {}});
  }
  return specs;
}

at::Tensor loss_of(const Tensors& outputs, const Tensors& targets) { return at::cross_entropy_loss(outputs.at(0), targets.at(0), {}, at::Reduction::Sum, -1); }

struct Batch {
  Tensors inputs, targets;
};
Batch batch_of(int step, int64_t rows) {
  const auto generator = at::detail::createCPUGenerator(static_cast<uint64_t>(7000 + step));
  const at::Tensor x = at::randn({rows, kWidth}, generator);
  return {{x}, {at::argmax(x.narrow(1, 0, kClasses), 1)}};
}
Batch rows_of(const Batch& batch, int64_t first, int64_t count) { return {{batch.inputs[0].narrow(0, first, count)}, {batch.targets[0].narrow(0, first, count)}}; }

using Weights = std::map<std::string, at::Tensor>;
struct Outcomes {
  std::vector<double> losses, norms;
  Weights weights;
  std::vector<std::vector<uint32_t>> hashes;  // of all parameters after each step, by rank
};

uint32_t hash_of(PipelineTrainer& trainer) {
  uint32_t hash = 0;
  for (const auto& p : trainer.parameters()) hash = hash * 31 + crc32({static_cast<const std::byte*>(p.value.data_ptr()), p.value.nbytes()});
  return hash;
}

// `rows` of each step's batch are dealt out to the replicas in equal parts.
Outcomes train(const TrainerOptions& options, int steps, int64_t rows) {
  Outcomes run;
  run.hashes.resize(static_cast<size_t>(options.mesh.size()));
  Mutex mutex;
  at::set_num_threads(1);
  comm::spawn_ranks(options.mesh.size(), [&](comm::Communicator& world) {
    PipelineTrainer trainer(world, perceptron(), options);
    for (int step = 0; step < steps; ++step) {
      const Batch mine = rows_of(batch_of(step, rows), trainer.replica() * rows / options.mesh.data, rows / options.mesh.data);
      const StepOutcome outcome = trainer.train_batch(mine.inputs, mine.targets, loss_of, 1e-3);
      const uint32_t hash = hash_of(trainer);
      MutexLock lock(mutex);
      run.hashes[static_cast<size_t>(world.rank())].push_back(hash);
      if (world.rank() != 0) continue;
      run.losses.push_back(outcome.loss);
      run.norms.push_back(outcome.gradient_norm);
    }
    MutexLock lock(mutex);
    for (const auto& p : trainer.parameters()) run.weights[p.name] = p.value.detach().clone();
  });
  return run;
}

TrainerOptions replicas(int count, int microbatches = 1) {
  TrainerOptions options;
  options.mesh.data = count;
  options.microbatches = microbatches;
  options.optimizer.clip_norm = 0.5;  // clips in the first steps
  return options;
}

void expect_equal(const Weights& got, const Weights& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [name, weight] : expected) EXPECT_TRUE(got.at(name).equal(weight)) << name;
}

double largest_difference(const Weights& a, const Weights& b) {
  double largest = 0;
  for (const auto& [name, weight] : a) largest = std::max(largest, (weight - b.at(name)).abs().max().item<double>());
  return largest;
}

TEST(DataParallel, TwoReplicasEqualAccumulationBitwise) {
  const Outcomes one = train(replicas(1, 2), 50, 2 * kSamples), two = train(replicas(2), 50, 2 * kSamples);
  EXPECT_LT(one.losses.back(), 0.8 * one.losses.front()) << "nothing was learned";
  expect_equal(two.weights, one.weights);
}

TEST(DataParallel, ThreeAndFourReplicasNearlyEqualAccumulation) {
  for (const int n : {3, 4}) {
    EXPECT_LE(largest_difference(train(replicas(n), 50, n * kSamples).weights, train(replicas(1, n), 50, n * kSamples).weights), 1e-6) << n;
  }
}

TEST(DataParallel, ReplicasNearlyEqualOneBatchInOnePiece) {
  for (const int n : {2, 3, 4}) {
    EXPECT_LE(largest_difference(train(replicas(n), 50, n * kSamples).weights, train(replicas(1), 50, n * kSamples).weights), 5e-5) << n;
    auto many = replicas(n), one = replicas(1);
    many.optimizer.name = one.optimizer.name = config::OptimizerName::kSgd;
    many.optimizer.momentum = one.optimizer.momentum = 0;
    EXPECT_LE(largest_difference(train(many, 20, n * kSamples).weights, train(one, 20, n * kSamples).weights), 1e-5) << n;
  }
}

TEST(DataParallel, AllRanksHaveTheSameBitsAfterEveryStep) {
  for (const int n : {2, 3, 4}) {
    auto options = replicas(n);
    options.bucket_mib = 0.3;  // a layer and a bit: several buckets, whose order changes after the first step
    const Outcomes run = train(options, 10, n * kSamples);
    for (const auto& hashes : run.hashes) EXPECT_EQ(hashes, run.hashes[0]) << n;
  }
}

TEST(DataParallel, BucketSizeChangesNoBitOfTwoReplicas) {
  const Outcomes usual = train(replicas(2), 10, 2 * kSamples);
  for (const double mib : {0.001, 0.1, 65536.0}) {
    auto options = replicas(2);
    options.bucket_mib = mib;
    expect_equal(train(options, 10, 2 * kSamples).weights, usual.weights);
  }
  const Outcomes three = train(replicas(3), 10, 3 * kSamples);
  auto one_bucket = replicas(3);
  one_bucket.bucket_mib = 65536;
  EXPECT_LE(largest_difference(train(one_bucket, 10, 3 * kSamples).weights, three.weights), 1e-6);
}

TEST(DataParallel, ReplicasOfPipelinesFollowOneProcessAndClipByTheSameNorm) {
  auto single = replicas(1, 8), mesh = replicas(2, 4);  // the same micro-batches
  single.schedule = "gpipe";
  mesh.mesh.pipe = 2;
  const auto follow = [&](double tolerance) {
    const Outcomes one = train(single, 10, 2 * kSamples), four = train(mesh, 10, 2 * kSamples);
    EXPECT_GT(one.norms.front(), 0.5) << "nothing was clipped";
    for (size_t i = 0; i < one.norms.size(); ++i) {
      EXPECT_NEAR(four.norms[i], one.norms[i], 1e-6 * one.norms[i]) << "step " << i;
      EXPECT_NEAR(four.losses[i], one.losses[i], 1e-6 * one.losses[i]) << "step " << i;
    }
    for (const auto& [name, weight] : four.weights) EXPECT_LE((weight - one.weights.at(name)).abs().max().item<double>(), tolerance) << name;
  };
  // AdamW divides by the gradient's own size, and so makes whole updates of the rounding of gradients near zero.
  follow(5e-6);
  single.optimizer.name = mesh.optimizer.name = config::OptimizerName::kSgd;
  follow(1e-6);
}

TEST(DataParallel, EveryStageReducesEachBucketOnceAStepHoweverManyMicrobatches) {
  comm::spawn_ranks(4, [&](comm::Communicator& world) {
    auto options = replicas(2, 4);
    options.mesh.pipe = 2;
    options.bucket_mib = 0.1;
    PipelineTrainer trainer(world, perceptron(), options);
    for (int step = 0; step < 2; ++step) {
      const Batch batch = batch_of(step, 8);
      std::vector<pipeline::Microbatch> microbatches;
      for (int i = 0; i < 4; ++i) microbatches.push_back({rows_of(batch, 2 * i, 2).inputs, rows_of(batch, 2 * i, 2).targets});
      int64_t bytes = 0;
      std::vector<int> buckets;
      for (const ReductionRecord& record : trainer.compute_gradients(microbatches, loss_of, 1.0 / 16).reductions) {
        buckets.push_back(record.bucket);
        bytes += record.bytes;
      }
      std::vector<int> expected(buckets.size());
      for (size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<int>(i);
      EXPECT_EQ(buckets, expected);
      EXPECT_GT(buckets.size(), 2u);
      int64_t gradients = 0;
      for (const auto& p : trainer.parameters()) gradients += static_cast<int64_t>(p.value.nbytes());
      EXPECT_GE(bytes, gradients);
      EXPECT_LE(bytes, gradients + 64 * static_cast<int64_t>(trainer.parameters().size()));
    }
  });
}

TEST(DataParallel, ALossThatIsNotANumberOnOneReplicaIsNamedOnEveryRankAndTheStepCanBeLeftOut) {
  auto options = replicas(2, 4);
  options.mesh.pipe = 2;
  // With or without a bad batch between two good ones.
  const auto weights_after = [&](bool bad_between) {
    Weights weights;
    Mutex mutex;
    comm::spawn_ranks(4, [&](comm::Communicator& world) {
      PipelineTrainer trainer(world, perceptron(), options);
      for (const int step : bad_between ? std::vector{0, 1, 2} : std::vector{0, 2}) {
        const bool bad = step == 1;
        const Batch mine = rows_of(batch_of(step, 2 * kSamples), trainer.replica() * kSamples, kSamples);
        const at::Tensor inputs = mine.inputs[0].clone();
        if (bad && trainer.replica() == 1) inputs[kSamples / 4 * 2][0] = std::nan("");
        try {
          (void)trainer.train_batch({inputs}, mine.targets, loss_of, 1e-3);
          EXPECT_FALSE(bad) << "rank " << world.rank();
        } catch (const Error& e) {
          EXPECT_TRUE(bad) << e.message();
          EXPECT_THAT(e.message(), testing::HasSubstr("step 2: the loss of replica 1, micro-batch 2 is not finite")) << "rank " << world.rank();
        }
      }
      MutexLock lock(mutex);
      for (const auto& p : trainer.parameters()) {
        const auto [known, is_new] = weights.emplace(p.name, p.value.detach().clone());
        EXPECT_TRUE(known->second.equal(p.value)) << p.name << " differs between replicas";
      }
    });
    return weights;
  };
  expect_equal(weights_after(true), weights_after(false));
}

TEST(DataParallel, LossIsTheMeanOverTheItemsOfAllReplicasHoweverTheyAreSpread) {
  // 20 rows; targets of some are ignored: 2 on the first replica, 9 on the second.
  Batch batch = batch_of(0, 20);
  batch.targets[0].narrow(0, 3, 2).fill_(-1);
  batch.targets[0].narrow(0, 11, 9).fill_(-1);
  const auto outcome_of = [&](int n) {
    StepOutcome outcome;
    comm::spawn_ranks(n, [&](comm::Communicator& world) {
      PipelineTrainer trainer(world, perceptron(), replicas(n, 2));
      const Batch mine = rows_of(batch, 20 / n * world.rank(), 20 / n);
      const auto result = trainer.train_batch(mine.inputs, mine.targets, loss_of, 1e-3);
      if (world.rank() == 0) outcome = result;
    });
    return outcome;
  };
  const StepOutcome one = outcome_of(1), two = outcome_of(2);
  EXPECT_EQ(one.items, 9);
  EXPECT_EQ(two.items, 9);
  EXPECT_NEAR(two.loss, one.loss, 1e-6 * one.loss);
  EXPECT_NEAR(two.gradient_norm, one.gradient_norm, 1e-6 * one.gradient_norm);
}

}  // namespace
}  // namespace penstock::train
