// Training with ranks that share layers: what it must have in common with a single process.
#include <gtest/gtest.h>

#include "formats/checkpoint_folder.h"
#include "train/train_case_test.h"
#include "weights/hf_directory.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

class TensorParallelTest : public TrainCase {
 protected:
  [[nodiscard]] config::TrainConfig config(const std::string& name, config::MeshConfig mesh = {}) const {
    config::TrainConfig c = small_run(name);
    c.model.intermediate_size = 72;
    c.model.tie_word_embeddings = true;
    c.mesh = mesh;
    c.batch.microbatches = 4 / mesh.data;
    c.steps = 12;
    return c;
  }

  static void expect_near(const config::TrainConfig& a, const config::TrainConfig& b) {
    const auto x = weights::HfDirectory::open(fs::path(a.output) / "model"), y = weights::HfDirectory::open(fs::path(b.output) / "model");
    ASSERT_EQ(x.names(), y.names());
    for (const auto& name : x.names()) {
      ASSERT_EQ(x.tensor(name).sizes(), y.tensor(name).sizes()) << name;
      EXPECT_LT((x.tensor(name) - y.tensor(name)).abs().max().item<double>(), 2e-3) << name;
    }
  }

  std::string failure(config::TrainConfig c) {
    try {
      run(c);
      return "accepted";
    } catch (const Error& e) {
      return e.message();
    }
  }
};

TEST_F(TensorParallelTest, EveryMeshFollowsTheSingleProcess) {
  const auto single = config("single");
  const auto a = run(single);
  ASSERT_EQ(a.losses.size(), 12u);
  EXPECT_LT(a.losses.back(), a.losses.front() - 0.3) << "nothing was learned";
  int number = 0;
  for (const config::MeshConfig& mesh : {config::MeshConfig{1, 1, 2}, {1, 2, 2}, {2, 1, 2}, {2, 2, 2}}) {
    SCOPED_TRACE(fmt::format("data {}, pipe {}, tensor {}", mesh.data, mesh.pipe, mesh.tensor));
    auto parallel = config(fmt::format("parallel{}", number++), mesh);
    if (mesh.data > 1) parallel.sharding = config::Sharding::kOptimizer;
    const auto b = run(parallel);
    ASSERT_EQ(b.losses.size(), 12u);
    for (size_t i = 0; i < 12; ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 2e-5) << "step " << i;
    EXPECT_NEAR(a.validation_loss, b.validation_loss, 1e-4);
    expect_near(single, parallel);
  }
}

TEST_F(TensorParallelTest, GradientsAreClippedByTheNormOfTheWholeModel) {
  auto single = config("single"), parallel = config("parallel", {1, 2, 2});
  single.optimizer.clip_norm = parallel.optimizer.clip_norm = 0.05;  // every step is clipped, so a wrong norm shows
  single.optimizer.name = parallel.optimizer.name = config::OptimizerName::kSgd;
  single.optimizer.lr = parallel.optimizer.lr = 0.5;
  const auto a = run(single), b = run(parallel);
  for (size_t i = 0; i < 12; ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 2e-5) << "step " << i;
}

TEST_F(TensorParallelTest, RecomputedActivationsAndShardedParametersFollowToo) {
  const auto a = run(config("single"));
  auto parallel = config("parallel", {2, 1, 2});
  parallel.sharding = config::Sharding::kParameters;
  parallel.activation_checkpoint_layers = 1;
  const auto b = run(parallel);
  for (size_t i = 0; i < 12; ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 2e-5) << "step " << i;
}

TEST_F(TensorParallelTest, CheckpointsLoadFromAndIntoAnyLayout) {
  const auto whole = run(config("single"));
  auto resumed = config("resumed");
  resumed.checkpoint = {3, 10, 0};
  const fs::path checkpoints = fs::path(resumed.output) / "checkpoints";
  // Each layout goes on from what the one before had written after three steps more.
  int start = 0;
  for (const config::MeshConfig& mesh : {config::MeshConfig{1, 1, 2}, {1, 2, 1}, {1, 2, 2}, {1, 1, 1}}) {
    SCOPED_TRACE(start);
    resumed.mesh = mesh;
    const auto losses = run(resumed, start > 0).losses;
    ASSERT_EQ(losses.size(), static_cast<size_t>(12 - start));
    for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], whole.losses[static_cast<size_t>(start) + i], 2e-5);
    start += 3;
    std::vector<fs::path> others;
    for (const auto& entry : fs::directory_iterator(checkpoints)) {
      if (entry.path() != formats::checkpoint_path(checkpoints, start)) others.push_back(entry.path());
    }
    for (const fs::path& other : others) fs::remove_all(other);
    ASSERT_NO_THROW(formats::verify_checkpoint(formats::checkpoint_path(checkpoints, start), {}));
  }
}

TEST_F(TensorParallelTest, WhatDoesNotWorkIsRefusedByName) {
  auto heads = config("heads", {1, 1, 4});
  EXPECT_NE(failure(heads).find("mesh.tensor: 4 ranks would share 2 heads of keys and values"), std::string::npos) << failure(heads);
  auto lamb = config("lamb", {1, 1, 2});
  lamb.optimizer.name = config::OptimizerName::kLamb;
  EXPECT_NE(failure(lamb).find("mesh.tensor 2: optimizer lamb and lars need the norm of every parameter"), std::string::npos) << failure(lamb);
  auto profiled = config("profiled", {1, 1, 2});
  profiled.partition = "profiled";
  EXPECT_NE(failure(profiled).find("partition profiled and schedule auto measure layers on one rank"), std::string::npos) << failure(profiled);
}

}  // namespace
}  // namespace penstock::train
