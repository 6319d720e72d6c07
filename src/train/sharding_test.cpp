// Sharded training against plain data parallelism: the same results, in the memory that the stages of ZeRO promise.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/mutex.h"
#include "comm/spawn_ranks.h"
#include "kernels/linear.h"
#include "tensor/memory_meter.h"
#include "train/pipeline_trainer.h"

namespace penstock::train {
namespace {

using config::Sharding;
using model::LayerSpec;
using model::Tensors;

constexpr Sharding kShardings[] = {Sharding::kOptimizer, Sharding::kGradients, Sharding::kParameters};

// tanh(x · Wᵀ · Wᵀ ... + b): the weight is used in an order, and by operations, of all kinds.
class Dense : public model::Layer {
 public:
  Dense(std::string name, int64_t width) : name_(std::move(name)), weight_(at::empty({width, width}, at::kFloat).requires_grad_(true)), bias_(at::empty({width}, at::kFloat).requires_grad_(true)) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    const at::Tensor& x = inputs.at(0);
    const at::Tensor y = kernels::linear(x, weight_, context.linear) + at::matmul(x, weight_.t()) * 0.5;  // the second keeps a view of the weight
    return {at::tanh(y + bias_) + x};
  }
  std::vector<model::Parameter> parameters() override {
    return {{name_ + ".weight", weight_, {{name_ + ".weight", 0, weight_.size(0)}}, 0.1, true}, {name_ + ".bias", bias_, {{name_ + ".bias", 0, bias_.size(0)}}, 0.1, false}};
  }

 private:
  const std::string name_;
  at::Tensor weight_, bias_;
};

// A weight that the first and the last layer share, wherever they are.
class Shared : public model::Layer {
 public:
  Shared(model::SharedWeights& shared, int64_t width) : weight_(shared.get("shared", [width] { return at::empty({width, width}, at::kFloat).requires_grad_(true); })) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override { return {at::tanh(kernels::linear(inputs.at(0), weight_, context.linear))}; }
  std::vector<model::Parameter> parameters() override { return {{"shared", weight_, {{"shared", 0, weight_.size(0)}}, 0.3, true}}; }

 private:
  at::Tensor weight_;
};

std::vector<LayerSpec> layers(int count, int64_t width, bool tied) {
  const LayerSpec shared{"shared", "Shared", width * width, [width](model::SharedWeights& weights) { return std::make_unique<Shared>(weights, width); }, {"shared"}};
  std::vector<LayerSpec> specs;
  if (tied) specs.push_back(shared);
  for (int i = 0; i < count; ++i) {
    specs.push_back({"dense", "Dense", width * (width + 1), [i, width](model::SharedWeights&) { return std::make_unique<Dense>(fmt::format("dense{}", i), width); }, {}});
  }
  if (tied) specs.push_back(shared);
  return specs;
}

at::Tensor squared_error(const Tensors& outputs, const Tensors& targets) { return (outputs.at(0) - targets.at(0)).square().sum(); }

at::Tensor rows(int step, int64_t count, int64_t width) { return at::randn({count, width}, at::detail::createCPUGenerator(static_cast<uint64_t>(50 + step))); }

struct Outcomes {
  std::vector<double> losses, norms;
  std::map<std::string, at::Tensor> weights;
  at::Tensor outputs;
};

Outcomes train(const TrainerOptions& options, bool tied = true) {
  constexpr int64_t kWidth = 13;  // divides by nothing
  Outcomes run;
  Mutex mutex;
  comm::spawn_ranks(options.mesh.size(), [&](comm::Communicator& world) {
    PipelineTrainer trainer(world, layers(4, kWidth, tied), options);
    const auto part_of = [&](const at::Tensor& whole) { return at::tensor_split(whole, options.mesh.data, 0)[static_cast<size_t>(trainer.replica())]; };
    for (int step = 0; step < 6; ++step) {
      const at::Tensor x = part_of(rows(step, 12, kWidth));
      const auto outcome = trainer.train_batch({x}, {x.abs()}, squared_error, 1e-2);
      MutexLock lock(mutex);
      if (world.rank() != 0) continue;
      run.losses.push_back(outcome.loss);
      run.norms.push_back(outcome.gradient_norm);
    }
    const Tensors outputs = trainer.eval_batch({rows(99, 8, kWidth)});
    for (size_t i = 0; i < trainer.parameters().size(); ++i) {
      const at::Tensor value = trainer.shards().whole_value(i, trainer.deadline()).clone();
      MutexLock lock(mutex);
      run.weights[trainer.parameters()[i].name] = value;
      if (!outputs.empty()) run.outputs = outputs[0].clone();
    }
  });
  return run;
}

void expect_equal(const Outcomes& got, const Outcomes& expected) {
  ASSERT_EQ(got.weights.size(), expected.weights.size());
  for (const auto& [name, weight] : expected.weights) EXPECT_TRUE(got.weights.at(name).equal(weight)) << name;
  EXPECT_EQ(got.losses, expected.losses);
  EXPECT_TRUE(got.outputs.equal(expected.outputs));
}

void expect_near(const Outcomes& got, const Outcomes& expected) {
  ASSERT_EQ(got.weights.size(), expected.weights.size());
  for (const auto& [name, weight] : expected.weights) EXPECT_TRUE(at::allclose(got.weights.at(name), weight, 1e-4, 1e-6)) << name;
  for (size_t i = 0; i < expected.norms.size(); ++i) EXPECT_NEAR(got.norms[i], expected.norms[i], 1e-6 * expected.norms[i]) << "step " << i;
  EXPECT_TRUE(at::allclose(got.outputs, expected.outputs, 1e-4, 1e-5));
}

TEST(Sharding, EveryStageEqualsPlainReplicasBitwiseOnTwo) {
  for (const int pipe : {1, 2}) {
    TrainerOptions options;
    options.mesh = {pipe, 2, 1};
    options.microbatches = 1;
    options.optimizer.clip_norm = 0.5;
    const Outcomes plain = train(options);
    EXPECT_GT(plain.norms.front(), 0.5) << "nothing was clipped";
    for (const Sharding sharding : kShardings) {
      SCOPED_TRACE(fmt::format("stage {} on {} pipe ranks", static_cast<int>(sharding), pipe));
      options.sharding = sharding;
      expect_equal(train(options), plain);
    }
  }
}

TEST(Sharding, EveryStageFollowsOneProcessWithEveryScheduleAndManyMicrobatches) {
  TrainerOptions single;
  single.microbatches = 1;
  const Outcomes whole = train(single);
  struct Case {
    plan::Topology mesh;
    const char* schedule;
    int microbatches, checkpoint_layers;
  };
  for (const Case& c : {Case{{1, 3, 1}, "gpipe", 2, 0}, {{2, 2, 1}, "1f1b", 3, 0}, {{2, 2, 1}, "zb-h1", 2, 0}, {{2, 2, 1}, "interleaved-1f1b", 2, 0},
                        {{1, 2, 1}, "zb-v", 4, 1}, {{2, 2, 1}, "zb-v", 4, 0}, {{2, 2, 1}, "1f1b", 2, 2}, {{2, 2, 1}, "dualpipev", 4, 0}, {{1, 4, 1}, "1f1b", 2, 3}}) {
    for (const Sharding sharding : kShardings) {
      SCOPED_TRACE(fmt::format("stage {}: {} on {} x {}, recomputing {}", static_cast<int>(sharding), c.schedule, c.mesh.pipe, c.mesh.data, c.checkpoint_layers));
      TrainerOptions options;
      options.mesh = c.mesh;
      options.schedule = c.schedule;
      options.microbatches = c.microbatches;
      options.checkpoint_layers = c.checkpoint_layers;
      options.sharding = sharding;
      expect_near(train(options), whole);
    }
  }
}

TEST(Sharding, LayerWiseOptimizersTakeTheirNormsOverAllParts) {
  for (const auto name : {config::OptimizerName::kLamb, config::OptimizerName::kLars, config::OptimizerName::kSgd}) {
    TrainerOptions single;
    single.microbatches = 1;
    single.optimizer.name = name;
    single.optimizer.trust_coefficient = 1;
    const Outcomes whole = train(single);
    for (const Sharding sharding : kShardings) {
      SCOPED_TRACE(fmt::format("optimizer {}, stage {}", static_cast<int>(name), static_cast<int>(sharding)));
      TrainerOptions options = single;
      options.mesh = {2, 3, 1};
      options.microbatches = 2;
      options.sharding = sharding;
      expect_near(train(options), whole);
    }
  }
}

// Ranks that are threads pass memory to each other, which one allocates and another frees: the communicator works on copies that nobody counts.
class UnmeteredWork : public comm::Work {
 public:
  UnmeteredWork(comm::WorkPtr inner, at::Tensor original, at::Tensor copy) : inner_(std::move(inner)), original_(std::move(original)), copy_(std::move(copy)) {}
  ~UnmeteredWork() override {
    const tensor::MemoryMeter uncounted;
    inner_.reset();
    copy_.reset();
  }
  void wait(Deadline deadline) override {
    const at::NoGradGuard no_grad;
    const tensor::MemoryMeter uncounted;
    inner_->wait(deadline);
    original_.copy_(copy_);
  }
  bool done() override { return inner_->done(); }

 private:
  comm::WorkPtr inner_;
  at::Tensor original_, copy_;
};
class Unmetered : public comm::Communicator {
 public:
  explicit Unmetered(comm::Communicator& inner) : inner_(inner) {}
  explicit Unmetered(std::unique_ptr<comm::Communicator> owned) : owned_(std::move(owned)), inner_(*owned_) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& name() const override { return inner_.name(); }
  comm::WorkPtr send(const at::Tensor& tensor, int to, int tag) override { return inner_.send(tensor, to, tag); }
  comm::WorkPtr recv(at::Tensor& tensor, int from, int tag) override { return inner_.recv(tensor, from, tag); }
  comm::WorkPtr all_reduce(at::Tensor& tensor, comm::Reduce op) override { return on_copy(tensor, [&](at::Tensor& t) { return inner_.all_reduce(t, op); }); }
  comm::WorkPtr broadcast(at::Tensor& tensor, int root) override { return on_copy(tensor, [&](at::Tensor& t) { return inner_.broadcast(t, root); }); }
  comm::WorkPtr reduce_scatter(at::Tensor& tensor, std::span<const int64_t> offsets) override {
    return on_copy(tensor, [&](at::Tensor& t) { return inner_.reduce_scatter(t, offsets); });
  }
  comm::WorkPtr all_gather(at::Tensor& tensor, std::span<const int64_t> offsets) override {
    return on_copy(tensor, [&](at::Tensor& t) { return inner_.all_gather(t, offsets); });
  }
  comm::WorkPtr all_reduce_rounded(at::Tensor& tensor, at::Tensor& residual) override { return inner_.all_reduce_rounded(tensor, residual); }
  comm::WorkPtr barrier() override { return inner_.barrier(); }
  at::Tensor reduction_buffer(int64_t bytes, Deadline deadline) override { return inner_.reduction_buffer(bytes, deadline); }
  std::unique_ptr<comm::Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    auto group = inner_.split(ranks, name, deadline);
    return group ? std::make_unique<Unmetered>(std::move(group)) : nullptr;
  }

 private:
  static comm::WorkPtr on_copy(const at::Tensor& tensor, const std::function<comm::WorkPtr(at::Tensor&)>& call) {
    const at::NoGradGuard no_grad;
    const tensor::MemoryMeter uncounted;
    at::Tensor copy = tensor.detach().clone();
    comm::WorkPtr work = call(copy);
    return std::make_unique<UnmeteredWork>(std::move(work), tensor, copy);
  }
  const std::unique_ptr<comm::Communicator> owned_;
  comm::Communicator& inner_;
};

// What the rank that holds most keeps between steps, and how much more it holds within one.
struct Bytes {
  double at_rest = 0, within_step = 0;
  int64_t parameters = 0;
};
Bytes measure(int replicas, Sharding sharding, int num_layers = 16) {
  constexpr int64_t kWidth = 128;
  Bytes most;
  Mutex mutex;
  comm::spawn_ranks(replicas, [&](comm::Communicator& metered) {
    Unmetered world(metered);
    const tensor::MemoryMeter meter;
    TrainerOptions options;
    options.mesh.data = replicas;
    options.microbatches = 1;
    options.sharding = sharding;
    options.bucket_mib = 0.1;
    const at::Tensor x = rows(0, 1, kWidth);
    const int64_t before = meter.live_bytes();
    PipelineTrainer trainer(world, layers(num_layers, kWidth, false), options);
    (void)trainer.train_batch({x}, {x}, squared_error, 1e-2);
    const int64_t at_rest = meter.live_bytes() - before;
    const tensor::MemoryMeter within;
    (void)trainer.train_batch({x}, {x}, squared_error, 1e-2);
    EXPECT_NEAR(static_cast<double>(within.live_bytes()), 0, 0.01 * static_cast<double>(at_rest)) << "a step leaves something behind";
    MutexLock lock(mutex);
    most.at_rest = std::max(most.at_rest, static_cast<double>(at_rest));
    most.within_step = std::max(most.within_step, static_cast<double>(within.peak_bytes()));
    most.parameters = num_layers * kWidth * (kWidth + 1);
  });
  return most;
}

TEST(Sharding, EachRankHoldsWhatTheFormulasSay) {
  for (const int n : {2, 4}) {
    const double part = 1.0 / n;
    const std::map<Sharding, double> formula = {{Sharding::kNone, 16}, {Sharding::kOptimizer, 8 + 8 * part}, {Sharding::kGradients, 4 + 12 * part}, {Sharding::kParameters, 16 * part}};
    for (const auto& [sharding, bytes] : formula) {
      const Bytes found = measure(n, sharding);
      EXPECT_NEAR(found.at_rest / static_cast<double>(found.parameters), bytes, 0.05 * bytes) << "stage " << static_cast<int>(sharding) << " on " << n << " replicas";
    }
  }
}

TEST(Sharding, AStepNeedsTheMemoryOfAFewLayersOnTopHoweverManyThereAre) {
  for (const Sharding sharding : {Sharding::kGradients, Sharding::kParameters}) {
    const Bytes shallow = measure(2, sharding, 16), deep = measure(2, sharding, 32);
    EXPECT_LE(deep.within_step, 1.15 * shallow.within_step) << static_cast<int>(sharding) << ": activations of one row may grow, no more";
    EXPECT_LE(shallow.within_step, 13 * 4 * shallow.parameters / 16) << "thirteen layers' weights";
  }
}

}  // namespace
}  // namespace penstock::train
