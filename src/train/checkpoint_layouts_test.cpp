// Checkpoints from any layout of ranks into any other, to the bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/file.h"
#include "base/mutex.h"
#include "base/temp_dir.h"
#include "comm/spawn_ranks.h"
#include "kernels/linear.h"
#include "train/checkpoint.h"
#include "train/checkpoint_writer.h"
#include "train/pipeline_trainer.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;
using config::Sharding;
using model::Tensors;

constexpr int64_t kWidth = 13;  // divides by nothing

class Dense : public model::Layer {
 public:
  Dense(std::string name, at::Tensor weight) : name_(std::move(name)), weight_(std::move(weight)), bias_(make({kWidth})) {}
  static at::Tensor make(at::IntArrayRef shape) { return at::empty(shape, at::kFloat).requires_grad_(true); }
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    return {at::tanh(kernels::linear(inputs.at(0), weight_, context.linear) + bias_)};
  }
  // The weight is stored as two tensors, as a fused projection is.
  std::vector<model::Parameter> parameters() override {
    const std::string weight = name_ == "first" || name_ == "last" ? "shared" : name_;
    return {{weight, weight_, {{weight + ".a", 0, 5}, {weight + ".b", 5, kWidth}}, 0.3, true}, {name_ + ".bias", bias_, {{name_ + ".bias", 0, kWidth}}, 0.1, false}};
  }

 private:
  const std::string name_;
  at::Tensor weight_, bias_;
};

// The first and the last share their weight.
std::vector<model::LayerSpec> layers() {
  const auto spec = [](const std::string& name, bool tied) {
    const auto build = [name, tied](model::SharedWeights& shared) {
      const auto make = [] { return Dense::make({kWidth, kWidth}); };
      return std::make_unique<Dense>(name, tied ? shared.get("shared", make) : make());
    };
    return model::LayerSpec{name, "Dense", kWidth * (kWidth + 1), build, tied ? std::vector<std::string>{"shared"} : std::vector<std::string>{}};
  };
  return {spec("first", true), spec("one", false), spec("two", false), spec("three", false), spec("four", false), spec("last", true)};
}

at::Tensor squared_error(const Tensors& outputs, const Tensors& targets) { return (outputs.at(0) - targets.at(0)).square().sum(); }

struct Layout {
  int pipe, data;
  Sharding sharding;
  const char* schedule = "1f1b";
};

// Value and moments of every parameter, whole.
using State = std::map<std::string, Tensors>;

// Loads `from`, or trains some steps where there is none; writes a checkpoint into `folder`; returns what the ranks then hold together.
State load_and_write(const Layout& layout, const fs::path& from, const fs::path& folder) {
  State all;
  Mutex mutex;
  comm::spawn_ranks(layout.pipe * layout.data, [&](comm::Communicator& world) {
    TrainerOptions options;
    options.mesh = {layout.pipe, layout.data, 1};
    options.schedule = layout.schedule;
    options.microbatches = 2;
    options.sharding = layout.sharding;
    options.seed = from.empty() ? 1 : 2;  // what is not loaded shows
    PipelineTrainer trainer(world, layers(), options);
    TrainState state{&trainer.parameters(), &trainer.shards(), &trainer.optimizer(), {}};
    for (int step = 0; from.empty() && step < 3; ++step) {
      const at::Tensor x = at::randn({2, kWidth}, at::detail::createCPUGenerator(static_cast<uint64_t>(10 * step + trainer.replica())));
      (void)trainer.train_batch({x}, {x.abs()}, squared_error, 1e-2);
      ++state.position.step;
    }
    if (!from.empty()) read_checkpoint(from, state);
    EXPECT_EQ(state.position.step, 3);

    CheckpointWriter::Options writing;
    writing.place = {folder, trainer.pipe_rank(), layout.pipe, trainer.replica(), layout.data};
    CheckpointWriter writer(writing);
    writer.start(world, state, "", std::nullopt, trainer.deadline());
    for (size_t i = 0; i < trainer.parameters().size(); ++i) {
      Tensors tensors = trainer.optimizer().moments(i, trainer.deadline());
      tensors.push_back(trainer.shards().whole_value(i, trainer.deadline()).clone());
      MutexLock lock(mutex);
      const auto [known, is_new] = all.emplace(trainer.parameters()[i].name, tensors);
      for (size_t k = 0; k < tensors.size(); ++k) EXPECT_TRUE(known->second[k].equal(tensors[k])) << known->first << " differs between ranks";
    }
    writer.finish();
    world.barrier()->wait(trainer.deadline());  // the others' threads wait for nobody; rank 0's completes the folder
  });
  return all;
}

TEST(CheckpointLayouts, AnyLoadsAnyOtherBitwise) {
  const TempDir dir;
  fs::path from;
  State first;
  int number = 0;
  for (const Layout& layout : {Layout{1, 4, Sharding::kOptimizer}, {2, 2, Sharding::kGradients}, {4, 1, Sharding::kNone}, {1, 1, Sharding::kParameters}, {1, 2, Sharding::kParameters},
                               {1, 8, Sharding::kParameters}, {2, 3, Sharding::kParameters, "zb-v"}, {1, 5, Sharding::kNone}, {3, 2, Sharding::kOptimizer}, {1, 4, Sharding::kGradients},
                               {1, 1, Sharding::kNone}}) {
    SCOPED_TRACE(fmt::format("pipe {}, data {}, sharding {}", layout.pipe, layout.data, static_cast<int>(layout.sharding)));
    const fs::path folder = dir.path() / fmt::format("run{}", number++);
    const State state = load_and_write(layout, from, folder);
    from = formats::newest_checkpoint(folder).value();
    if (first.empty()) {
      first = state;
      ASSERT_EQ(first.size(), 11u);
      for (const auto& [name, tensors] : first) EXPECT_GT(tensors[0].abs().sum().item<double>(), 0) << name << " has no momentum";
    }
    ASSERT_EQ(state.size(), first.size());
    for (const auto& [name, tensors] : first) {
      ASSERT_EQ(tensors.size(), 3u);
      for (size_t k = 0; k < 3; ++k) EXPECT_TRUE(state.at(name)[k].equal(tensors[k])) << name << ", tensor " << k;
    }
    EXPECT_NO_THROW(formats::verify_checkpoint(from, {}));
  }
}

TEST(CheckpointLayouts, FourReplicasAreDealtAnewToTwoAndToEight) {
  const TempDir dir;
  const State four = load_and_write({1, 4, Sharding::kOptimizer}, {}, dir.path() / "four");
  const fs::path from = formats::newest_checkpoint(dir.path() / "four").value();
  for (const int replicas : {2, 8}) {
    const State state = load_and_write({1, replicas, Sharding::kOptimizer}, from, dir.path() / std::to_string(replicas));
    for (const auto& [name, tensors] : four) {
      for (size_t k = 0; k < tensors.size(); ++k) EXPECT_TRUE(state.at(name)[k].equal(tensors[k])) << name << ", tensor " << k << ", " << replicas << " replicas";
    }
  }
}

TEST(CheckpointLayouts, AManifestThatWasChangedAfterwardsIsRefused) {
  const TempDir dir;
  (void)load_and_write({1, 1, Sharding::kNone}, {}, dir.path());
  const fs::path folder = formats::newest_checkpoint(dir.path()).value();
  std::string text = read_file(folder / "manifest.json", 1 << 20).value();
  const size_t step = text.find("\"step\": 3");
  ASSERT_NE(step, std::string::npos) << text;
  text[step + 8] = '2';
  write_file_atomic(folder / "manifest.json", text);
  const auto manifest = formats::read_manifest(folder);
  ASSERT_FALSE(manifest);
  EXPECT_EQ(manifest.error().code(), Code::kDataLoss);
  EXPECT_THAT(manifest.error().message(), testing::HasSubstr("manifest.json: its checksum is not that of its text"));
}

TEST(CheckpointLayouts, EveryReplicaWritesItsShareOfTheBytes) {
  const TempDir dir;
  (void)load_and_write({2, 3, Sharding::kParameters}, {}, dir.path());
  const auto manifest = formats::read_manifest(formats::newest_checkpoint(dir.path()).value()).value();
  std::vector<std::string> names;
  for (const auto& [name, file] : manifest.files) {
    names.push_back(name);
    EXPECT_FALSE(file.tensors.empty()) << name;
    // A pipe rank has three weights of 169 elements and some biases; with moments, 12 bytes each.
    EXPECT_LE(file.bytes, 2 * (169 + 3 * 13) * 12 + 2048u) << name;
  }
  EXPECT_THAT(names, testing::ElementsAre("stage-00000-replica-00001.safetensors", "stage-00000-replica-00002.safetensors", "stage-00000.safetensors",
                                          "stage-00001-replica-00001.safetensors", "stage-00001-replica-00002.safetensors", "stage-00001.safetensors"));
}

// A run whose gradients travel as bfloat16.
struct Rounded {
  std::vector<double> losses;
  std::map<std::string, at::Tensor> weights;
  std::map<std::string, at::Tensor> remembered;  // of each parameter, over all ranks: at the checkpoint that was written or read
};

// Steps `first` to `last`, of which the third is followed by a checkpoint into `folder`, if there is one. `forgets`: what was remembered is not read.
Rounded train_rounded(const Layout& layout, int first, int last, const fs::path& from, const fs::path& folder, bool forgets = false) {
  Rounded run;
  Mutex mutex;
  comm::spawn_ranks(layout.pipe * layout.data, [&](comm::Communicator& world) {
    TrainerOptions options;
    options.mesh = {layout.pipe, layout.data, 1};
    options.microbatches = 2;
    options.sharding = layout.sharding;
    options.schedule = layout.schedule;
    options.reduce_dtype = config::ReduceDtype::kBfloat16;
    options.optimizer.name = config::OptimizerName::kSgd;  // AdamW's steps depend on their number, which is forgotten, too
    options.bucket_mib = 0.001;  // several buckets a stage
    PipelineTrainer trainer(world, layers(), options);
    TrainState state{&trainer.parameters(), &trainer.shards(), &trainer.optimizer(), {}};
    if (!forgets) state.trainer = &trainer;
    const auto remember = [&] {
      for (const model::Parameter& p : trainer.parameters()) {
        if (!trainer.reducer()->rounds()) continue;
        const at::Tensor mine = trainer.reducer()->residual(p.value).clone();
        MutexLock lock(mutex);
        const auto [sum, is_first] = run.remembered.emplace(p.name, mine);
        if (!is_first) sum->second.add_(mine);
      }
    };
    if (!from.empty()) {
      read_checkpoint(from, state);
      remember();
    }
    CheckpointWriter::Options writing;
    writing.place = {folder, trainer.pipe_rank(), layout.pipe, trainer.replica(), layout.data};
    CheckpointWriter writer(writing);
    for (int step = first; step < last; ++step) {
      const at::Tensor x = at::randn({4, kWidth}, at::detail::createCPUGenerator(static_cast<uint64_t>(10 * step + trainer.replica())));
      const StepOutcome outcome = trainer.train_batch({x}, {x.abs()}, squared_error, 1e-2);
      ++state.position.step;
      if (world.rank() == 0) run.losses.push_back(outcome.loss);
      if (folder.empty() || step != 2) continue;
      remember();
      writer.start(world, state, "", std::nullopt, trainer.deadline());
    }
    writer.finish();
    world.barrier()->wait(trainer.deadline());
    for (size_t i = 0; i < trainer.parameters().size(); ++i) {
      const at::Tensor value = trainer.shards().whole_value(i, trainer.deadline()).clone();
      MutexLock lock(mutex);
      run.weights[trainer.parameters()[i].name] = value;
    }
  });
  return run;
}

bool same_weights(const Rounded& a, const Rounded& b) {
  return std::ranges::all_of(a.weights, [&](const auto& entry) { return entry.second.equal(b.weights.at(entry.first)); });
}

TEST(CheckpointLayouts, ARunWithRoundedGradientsResumesBitwise) {
  for (const Layout& layout : {Layout{1, 2, Sharding::kNone}, {2, 2, Sharding::kNone}, {1, 3, Sharding::kOptimizer}, {2, 2, Sharding::kOptimizer, "zb-v"}}) {
    SCOPED_TRACE(fmt::format("pipe {}, data {}, sharding {}", layout.pipe, layout.data, static_cast<int>(layout.sharding)));
    const TempDir dir;
    const Rounded whole = train_rounded(layout, 0, 7, {}, dir.path());
    const fs::path from = formats::newest_checkpoint(dir.path()).value();
    const Rounded rest = train_rounded(layout, 3, 7, from, {}), forgetful = train_rounded(layout, 3, 7, from, {}, true);
    EXPECT_EQ(rest.losses, std::vector<double>(whole.losses.begin() + 3, whole.losses.end()));
    EXPECT_TRUE(same_weights(rest, whole));
    EXPECT_FALSE(same_weights(forgetful, whole)) << "nothing was rounded";
  }
}

// Losses of steps `first` to `last` of train_batch() with AdamW; a checkpoint into `folder` after the third, where there is one.
std::vector<double> adamw_losses(int first, int last, const fs::path& from, const fs::path& folder) {
  std::vector<double> losses;
  comm::spawn_ranks(2, [&](comm::Communicator& world) {
    TrainerOptions options;
    options.mesh = {1, 2, 1};
    options.microbatches = 2;
    PipelineTrainer trainer(world, layers(), options);
    TrainState state{&trainer.parameters(), &trainer.shards(), &trainer.optimizer(), {}};
    state.trainer = &trainer;
    if (!from.empty()) read_checkpoint(from, state);
    EXPECT_EQ(trainer.updates(), first);
    CheckpointWriter::Options writing;
    writing.place = {folder, 0, 1, trainer.replica(), 2};
    CheckpointWriter writer(writing);
    for (int step = first; step < last; ++step) {
      const at::Tensor x = at::randn({4, kWidth}, at::detail::createCPUGenerator(static_cast<uint64_t>(10 * step + trainer.replica())));
      const StepOutcome outcome = trainer.train_batch({x}, {x.abs()}, squared_error, 1e-2);
      ++state.position.step;
      if (world.rank() == 0) losses.push_back(outcome.loss);
      if (!folder.empty() && step == 2) writer.start(world, state, "", std::nullopt, trainer.deadline());
    }
    writer.finish();
    world.barrier()->wait(trainer.deadline());
  });
  return losses;
}

TEST(CheckpointLayouts, TrainBatchCountsOnAfterACheckpointIsRead) {
  const TempDir dir;
  const auto whole = adamw_losses(0, 7, {}, dir.path());
  const auto rest = adamw_losses(3, 7, formats::newest_checkpoint(dir.path()).value(), {});
  EXPECT_EQ(rest, std::vector<double>(whole.begin() + 3, whole.end())) << "AdamW's first steps are larger, and it took them again";
}

TEST(CheckpointLayouts, OtherLayoutsTakeOverAllThatRoundingHasTaken) {
  const TempDir dir;
  const Rounded written = train_rounded({2, 2, Sharding::kNone}, 0, 3, {}, dir.path());
  const fs::path from = formats::newest_checkpoint(dir.path()).value();
  for (const Layout& layout : {Layout{2, 2, Sharding::kNone}, {1, 3, Sharding::kNone}, {3, 2, Sharding::kOptimizer}, {1, 4, Sharding::kOptimizer}, {2, 3, Sharding::kNone, "zb-v"}}) {
    SCOPED_TRACE(fmt::format("pipe {}, data {}", layout.pipe, layout.data));
    const Rounded read = train_rounded(layout, 3, 3, from, {});
    ASSERT_EQ(read.remembered.size(), written.remembered.size());
    for (const auto& [name, sum] : written.remembered) {
      EXPECT_GT(sum.abs().max().item<double>(), 0) << name;
      EXPECT_TRUE(at::allclose(read.remembered.at(name), sum, 1e-6, 1e-9)) << name;
    }
  }
  EXPECT_TRUE(train_rounded({2, 1, Sharding::kNone}, 3, 3, from, {}).remembered.empty()) << "one replica rounds nothing";
}

}  // namespace
}  // namespace penstock::train
