// The library's own face: layers of any kind, trained on a mesh of threads.
#include "train/pipeline_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <thread>

#include "base/file.h"
#include "base/mutex.h"
#include "base/temp_dir.h"
#include "comm/shaped_link.h"
#include "comm/spawn_ranks.h"

namespace penstock::train {
namespace {

using model::LayerSpec;
using model::Tensors;

// y = relu(x · Wᵀ); passes every other tensor through as it is.
class Dense : public model::Layer {
 public:
  Dense(std::string name, int64_t in, int64_t out) : name_(std::move(name)), weight_(at::empty({out, in}, at::kFloat).requires_grad_(true)) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    Tensors outputs = inputs;
    outputs[0] = at::relu(kernels::linear(inputs.at(0), weight_, context.linear));
    return outputs;
  }
  std::vector<model::Parameter> parameters() override { return {{name_, weight_, {{name_, 0, weight_.size(0)}}, 0.4, true}}; }

 private:
  std::string name_;
  at::Tensor weight_;
};

// Multiplies by the second tensor, an integer one that comes with the input.
class Gate : public model::Layer {
 public:
  Tensors forward(const Tensors& inputs, const model::ForwardContext&) override { return {inputs.at(0) * inputs.at(1), inputs.at(1)}; }
  std::vector<model::Parameter> parameters() override { return {}; }
};

std::vector<LayerSpec> layers() {
  std::vector<LayerSpec> specs;
  for (int i = 0; i < 6; ++i) {
    specs.push_back({fmt::format("dense{}", i), "Dense", 64, [i](model::SharedWeights&) { return std::make_unique<Dense>(fmt::format("w{}", i), 8, 8); }, {}});
    if (i == 2) specs.push_back({"gate", "Gate", 0, [](model::SharedWeights&) { return std::make_unique<Gate>(); }, {}});
  }
  return specs;
}

at::Tensor squared_error(const Tensors& outputs, const Tensors& targets) { return (outputs.at(0) - targets.at(0)).square().sum(); }

struct Outcome {
  std::vector<double> losses;
  std::map<std::string, at::Tensor> weights;
  Tensors logits;
};

Tensors inputs_of(int step, int rows) {
  at::Generator g = at::detail::createCPUGenerator(static_cast<uint64_t>(100 + step));
  const at::Tensor x = at::randn({rows, 8}, g);
  return {x, (at::arange(rows * 8).view({rows, 8}) % 3)};
}

// Ten steps on `rows` rows in all; each replica takes its part of them.
Outcome train(const TrainerOptions& options, int rows = 10) {
  Outcome run;
  Mutex mutex;
  comm::spawn_ranks(options.mesh.size(), [&](comm::Communicator& world) {
    PipelineTrainer trainer(world, layers(), options);
    for (int step = 0; step < 10; ++step) {
      const Tensors whole = inputs_of(step, rows);
      Tensors mine;
      for (const at::Tensor& t : whole) mine.push_back(at::tensor_split(t, options.mesh.data, 0)[static_cast<size_t>(trainer.replica())]);
      const StepOutcome outcome = trainer.train_batch(mine, {mine[0].abs()}, squared_error, 1e-2);
      MutexLock lock(mutex);
      if (world.rank() == 0) run.losses.push_back(outcome.loss);
    }
    const Tensors logits = trainer.eval_batch(inputs_of(99, 7));
    (void)trainer.train_batch(inputs_of(0, rows), {inputs_of(0, rows)[0].abs()}, squared_error, 0);  // training goes on after an evaluation
    MutexLock lock(mutex);
    if (!logits.empty() && trainer.replica() == 0) run.logits = logits;
    for (const auto& p : trainer.parameters()) run.weights[p.name] = p.value.detach().clone();
  });
  return run;
}

void expect_same(const Outcome& got, const Outcome& expected) {
  ASSERT_EQ(got.losses.size(), expected.losses.size());
  for (size_t i = 0; i < got.losses.size(); ++i) EXPECT_NEAR(got.losses[i], expected.losses[i], 1e-6 * expected.losses[i]) << "step " << i;
  ASSERT_EQ(got.weights.size(), expected.weights.size());
  for (const auto& [name, weight] : expected.weights) EXPECT_TRUE(at::allclose(got.weights.at(name), weight, 1e-4, 1e-6)) << name;
  ASSERT_EQ(got.logits.size(), expected.logits.size());
  EXPECT_EQ(got.logits[0].sizes(), expected.logits[0].sizes()) << "the outputs of all micro-batches";
  EXPECT_TRUE(at::allclose(got.logits[0], expected.logits[0], 1e-4, 1e-5));
}

TEST(PipelineTrainer, TrainsLayersOfAnyKindAsOneProcessWould) {
  TrainerOptions single;
  single.microbatches = 1;
  const Outcome whole = train(single);
  EXPECT_LT(whole.losses.back(), whole.losses.front());
  struct Case {
    plan::Topology mesh;
    const char* schedule;
    int microbatches;  // 5 rows a replica: uneven pieces
  };
  for (const Case& c : {Case{{3, 1, 1}, "1f1b", 4}, {{2, 2, 1}, "1f1b", 3}, {{2, 2, 1}, "zb-h1", 2}, {{2, 1, 1}, "interleaved-1f1b", 4},
                        {{2, 2, 1}, "dualpipev", 4}, {{1, 2, 1}, "gpipe", 5}, {{3, 1, 1}, "zb-v", 7}, {{2, 1, 2}, "1f1b", 2}}) {
    SCOPED_TRACE(fmt::format("{} on {} x {} x {}", c.schedule, c.mesh.pipe, c.mesh.data, c.mesh.tensor));
    TrainerOptions options;
    options.mesh = c.mesh;
    options.schedule = c.schedule;
    options.microbatches = c.microbatches;
    expect_same(train(options), whole);
  }
}

TEST(PipelineTrainer, EveryOptimizerTrainsOnAnyMeshAsOnOneRank) {
  using Name = config::OptimizerName;
  std::map<Name, at::Tensor> first_weights;
  for (const Name name : {Name::kAdamw, Name::kSgd, Name::kLamb, Name::kLars}) {
    SCOPED_TRACE(static_cast<int>(name));
    TrainerOptions options;
    options.microbatches = 1;
    options.optimizer.name = name;
    options.optimizer.trust_coefficient = 1;
    options.optimizer.weight_decay = 0.5;
    options.optimizer.decay_groups = {"^w[34]=0.25", "w=0.125"};
    const Outcome whole = train(options);
    EXPECT_LT(whole.losses.back(), whole.losses.front());
    options.mesh = {2, 2, 1};
    options.microbatches = 3;
    expect_same(train(options), whole);
    options.sharding = config::Sharding::kOptimizer;
    expect_same(train(options), whole);
    for (const auto& [other, weight] : first_weights) EXPECT_FALSE(at::allclose(weight, whole.weights.at("w0"), 1e-3)) << static_cast<int>(other);
    first_weights[name] = whole.weights.at("w0");

    options.optimizer.decay_groups = {};
    EXPECT_FALSE(at::allclose(train(options).weights.at("w0"), whole.weights.at("w0"), 1e-4)) << "another weight decay, another result";
  }
}

// Weights after two updates.
std::map<std::string, at::Tensor> updated_weights(const TrainerOptions& options) {
  std::vector<LayerSpec> specs;
  for (int i = 0; i < 8; ++i) {
    specs.push_back({fmt::format("dense{}", i), "Dense", 64, [i](model::SharedWeights&) { return std::make_unique<Dense>(fmt::format("w{}", i), 8, 8); }, {}});
  }
  std::map<std::string, at::Tensor> weights;
  Mutex mutex;
  comm::spawn_ranks(options.mesh.size(), [&](comm::Communicator& world) {
    PipelineTrainer trainer(world, specs, options);
    for (int step = 0; step < 2; ++step) {
      const at::Tensor rows = inputs_of(step, 9)[0];
      (void)trainer.train_batch({rows}, {rows.abs()}, squared_error, 1e-2);
    }
    MutexLock lock(mutex);
    for (const auto& p : trainer.parameters()) weights[p.name] = p.value.detach().clone();
  });
  return weights;
}

class UpdatedWeights : public testing::TestWithParam<std::string> {};

TEST_P(UpdatedWeights, AreThoseOfOneProcess) {
  TrainerOptions single;
  single.microbatches = 1;
  const auto expected = updated_weights(single);
  int compared = 0;
  for (int ranks = 1; ranks <= 4; ++ranks) {
    for (int microbatches = 1; microbatches <= 9; ++microbatches) {
      if (!plan::make_schedule({GetParam(), ranks, microbatches, 0}).ok()) continue;
      SCOPED_TRACE(fmt::format("{} ranks, {} micro-batches", ranks, microbatches));
      TrainerOptions options;
      options.mesh.pipe = ranks;
      options.schedule = GetParam();
      options.microbatches = microbatches;
      const auto got = updated_weights(options);
      ASSERT_EQ(got.size(), expected.size());
      for (const auto& [name, weight] : expected) {
        EXPECT_LE((got.at(name) - weight).norm().item<double>(), 1e-6 * weight.norm().item<double>()) << name;
      }
      ++compared;
    }
  }
  EXPECT_GE(compared, 12);
}

INSTANTIATE_TEST_SUITE_P(PipelineTrainer, UpdatedWeights,
                         testing::Values("gpipe", "1f1b", "eager-1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "zb-v", "dualpipev"), [](const auto& info) {
                           std::string name = info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

// A layer that takes its time.
class Slow : public model::Layer {
 public:
  explicit Slow(int milliseconds) : milliseconds_(milliseconds) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext&) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds_));
    return {inputs.at(0) * 1.0};
  }
  std::vector<model::Parameter> parameters() override { return {}; }

 private:
  int milliseconds_;
};

TEST(PipelineTrainer, CutsByMeasuredTime) {
  std::vector<LayerSpec> specs;
  for (const int ms : {12, 3, 3, 3, 3}) specs.push_back({"slow", "Slow", 1, [ms](model::SharedWeights&) { return std::make_unique<Slow>(ms); }, {}});
  comm::spawn_ranks(2, [&](comm::Communicator& world) {
    TrainerOptions options;
    options.mesh = {2, 1, 1};
    options.partition = "profiled";
    options.sample = pipeline::ProfileRequest{{{at::ones({4, 4})}, {}}, nullptr, kernels::Compute::kFp32, 1, 3};
    PipelineTrainer trainer(world, specs, options);
    EXPECT_EQ(trainer.boundaries(), (plan::Boundaries{0, 1, 5}));
    options.sample.reset();
    EXPECT_THROW(PipelineTrainer(world, specs, options), Error);
  });
}

TEST(PipelineTrainer, ChoosesEager1f1bOnASlowLinkAndPlainOnAFastOne) {
  std::vector<LayerSpec> specs(4, {"slow", "Slow", 1, [](model::SharedWeights&) { return std::make_unique<Slow>(20); }, {}});
  for (const int hop_ms : {0, 10}) {
    comm::spawn_ranks(4, [&](comm::Communicator& plain) {
      const auto link = comm::make_shaped_link(plain, {std::chrono::milliseconds(hop_ms), 0});
      TrainerOptions options;
      options.mesh = {4, 1, 1};
      options.microbatches = 16;
      options.schedule = "auto";
      options.sample = pipeline::ProfileRequest{{{at::ones({4, 4})}, {}}, nullptr, kernels::Compute::kFp32, 1, 3};
      PipelineTrainer trainer(*link, specs, options);
      EXPECT_EQ(trainer.schedule().name, hop_ms == 0 ? "1f1b" : "eager-1f1b");
    });
  }
}

TEST(PipelineTrainer, ShardsAboutAnEqualPartOfTheState) {
  TrainerOptions options;
  options.mesh = {1, 3, 1};
  options.microbatches = 1;
  options.sharding = config::Sharding::kOptimizer;
  int64_t all = 0;
  Mutex mutex;
  comm::spawn_ranks(3, [&](comm::Communicator& world) {
    PipelineTrainer trainer(world, layers(), options);
    const int64_t mine = trainer.optimizer().state_bytes();
    EXPECT_LE(mine, (6 * 64 / 3 + 16) * 8);
    MutexLock lock(mutex);
    all += mine;
  });
  EXPECT_EQ(all, 6 * 64 * 8);
}

// What every rank says when `spoil` changes a rank's batch.
std::vector<std::string> complaints(const TrainerOptions& options, const std::function<void(Tensors& inputs, Tensors& targets)>& spoil) {
  std::vector<std::string> messages(static_cast<size_t>(options.mesh.size()));
  Mutex mutex;
  comm::spawn_ranks(options.mesh.size(), [&](comm::Communicator& world) {
    PipelineTrainer trainer(world, layers(), options);
    Tensors inputs = inputs_of(0, 8), targets = {inputs[0].abs()};
    spoil(inputs, targets);
    try {
      (void)trainer.train_batch(inputs, targets, squared_error, 1e-2);
    } catch (const Error& e) {
      MutexLock lock(mutex);
      messages[static_cast<size_t>(world.rank())] = e.message();
    }
  });
  return messages;
}

TEST(PipelineTrainer, NamesTheMicrobatchWhoseLossIsNotANumberOnEveryRank) {
  TrainerOptions options;
  options.mesh = {2, 2, 1};
  options.microbatches = 4;
  const auto messages = complaints(options, [](Tensors&, Tensors& targets) { targets[0][5][0] = std::nan(""); });
  for (const std::string& message : messages) {
    EXPECT_NE(message.find("step 1: the loss of replica 0, micro-batch 2 is not finite"), std::string::npos) << message;
  }
}

std::string refusal(const TrainerOptions& options) {
  std::string message = "accepted";
  Mutex mutex;
  comm::spawn_ranks(options.mesh.size(), [&](comm::Communicator& world) {
    try {
      PipelineTrainer trainer(world, layers(), options);
    } catch (const Error& e) {
      MutexLock lock(mutex);
      message = e.message();
    }
  });
  return message;
}

TEST(PipelineTrainer, RefusesWhatCannotBe) {
  TrainerOptions options;
  options.mesh = {8, 1, 1};
  EXPECT_NE(refusal(options).find("7 layers cannot fill 8 stages"), std::string::npos);
  options.mesh = {2, 1, 1};
  options.schedule = "dualpipev";
  options.microbatches = 3;
  EXPECT_NE(refusal(options).find("found 3"), std::string::npos);
  options.schedule = "no/such.csv";
  EXPECT_NE(refusal(options).find("no/such.csv"), std::string::npos);
}

TEST(PipelineTrainer, AllRanksRefuseABatchThatOneCannotTake) {
  TrainerOptions options;
  options.mesh = {3, 1, 1};
  options.microbatches = 4;
  auto messages = complaints(options, [](Tensors& inputs, Tensors&) { inputs[1] = inputs[1].narrow(0, 0, 3); });
  EXPECT_NE(messages[0].find("tensor 1 of shape [3, 8] cannot be cut into 4"), std::string::npos) << messages[0];
  for (const int rank : {1, 2}) EXPECT_NE(messages[static_cast<size_t>(rank)].find("1 of 3 ranks refused"), std::string::npos) << messages[static_cast<size_t>(rank)];
  messages = complaints(options, [](Tensors&, Tensors& targets) { targets = {at::ones({12, 8})}; });
  for (const std::string& message : messages) EXPECT_NE(message.find("8 rows of inputs, 12 of targets"), std::string::npos) << message;
  messages = complaints(options, [](Tensors&, Tensors& targets) { targets.clear(); });
  EXPECT_NE(messages[2].find("expected targets"), std::string::npos) << messages[2];
}

// Two outputs that both carry gradients, a mask that carries none, and shapes that change from layer to layer.
class Fork : public model::Layer {
 public:
  explicit Fork(int index) : name_(fmt::format("fork{}", index)), weight_(at::empty({8, 8}, at::kFloat).requires_grad_(true)) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    const at::Tensor x = inputs.size() == 1 ? inputs[0] : inputs[0] * inputs[2].to(at::kFloat) + inputs[1].transpose(0, 1);
    const at::Tensor y = at::tanh(kernels::linear(x, weight_, context.linear));
    return {y, (x * 0.5 + y).transpose(0, 1), x > 0};
  }
  std::vector<model::Parameter> parameters() override { return {{name_, weight_, {{name_, 0, 8}}, 0.4, true}}; }

 private:
  std::string name_;
  at::Tensor weight_;
};

TEST(PipelineTrainer, SeveralTensorsOfAnyKindTravelBetweenStages) {
  std::vector<LayerSpec> specs;
  for (int i = 0; i < 4; ++i) specs.push_back({"fork", "Fork", 64, [i](model::SharedWeights&) { return std::make_unique<Fork>(i); }, {}});
  const auto losses = [&](int ranks, const char* schedule) {
    std::vector<double> all;
    comm::spawn_ranks(ranks, [&](comm::Communicator& world) {
      TrainerOptions options;
      options.mesh.pipe = ranks;
      options.schedule = schedule;
      options.microbatches = 2;
      PipelineTrainer trainer(world, specs, options);
      for (int step = 0; step < 5; ++step) {
        const at::Tensor x = inputs_of(step, 8)[0];
        const auto loss = [](const Tensors& outputs, const Tensors& targets) {
          return ((outputs[0] + outputs[1].transpose(0, 1)) * outputs[2].to(at::kFloat) - targets[0]).square().sum();
        };
        const auto outcome = trainer.train_batch({x}, {x.abs()}, loss, 1e-2);
        if (world.rank() == 0) all.push_back(outcome.loss);
      }
    });
    return all;
  };
  const auto whole = losses(1, "gpipe");
  for (const char* schedule : {"1f1b", "zb-h1", "zb-v"}) {
    const auto cut = losses(2, schedule);
    ASSERT_EQ(cut.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(cut[i], whole[i], 1e-6 * whole[i]) << schedule << " step " << i;
  }
}

TEST(PipelineTrainer, IgnoredTargetsCountForNothing) {
  std::vector<LayerSpec> specs = {{"dense", "Dense", 64, [](model::SharedWeights&) { return std::make_unique<Dense>("w", 8, 8); }, {}}};
  const auto loss = [](const Tensors& outputs, const Tensors& targets) { return at::cross_entropy_loss(outputs[0], targets[0], {}, at::Reduction::Sum, -1); };
  comm::spawn_ranks(1, [&](comm::Communicator& world) {
    TrainerOptions options;
    options.microbatches = 2;
    PipelineTrainer padded(world, specs, options), plain(world, specs, options);
    const at::Tensor x = inputs_of(0, 4)[0], ids = at::tensor({1, 2, 3, 4}, at::kLong);
    const auto a = plain.train_batch({x}, {ids}, loss, 0);
    const auto b = padded.train_batch({at::cat({x, x})}, {at::cat({ids, at::full({4}, -1, at::kLong)})}, loss, 0);
    EXPECT_NEAR(a.loss, b.loss, 1e-6);
    EXPECT_NEAR(a.gradient_norm, b.gradient_norm, 1e-6);
  });
}

// A weight that two layers share, wherever they are.
class Shared : public model::Layer {
 public:
  explicit Shared(model::SharedWeights& shared) : weight_(shared.get("shared", [] { return at::empty({8, 8}, at::kFloat).requires_grad_(true); })) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override { return {at::tanh(kernels::linear(inputs[0], weight_, context.linear))}; }
  std::vector<model::Parameter> parameters() override { return {{"shared", weight_, {{"shared", 0, 8}}, 0.4, true}}; }

 private:
  at::Tensor weight_;
};

TEST(PipelineTrainer, ATiedWeightIsOneWeightWithEveryScheduleReplicasAndRecomputation) {
  const LayerSpec shared{"shared", "Shared", 64, [](model::SharedWeights& weights) { return std::make_unique<Shared>(weights); }, {"shared"}};
  std::vector<LayerSpec> specs = {shared};
  for (int i = 0; i < 3; ++i) {
    specs.push_back({fmt::format("dense{}", i), "Dense", 64, [i](model::SharedWeights&) { return std::make_unique<Dense>(fmt::format("w{}", i), 8, 8); }, {}});
    if (i == 1) specs.push_back(shared);
  }
  specs.push_back(shared);
  struct Case {
    plan::Topology mesh;
    const char* schedule;
    int checkpoint_layers;
  };
  const auto losses = [&](const Case& c) {
    std::vector<double> all;
    comm::spawn_ranks(c.mesh.size(), [&](comm::Communicator& world) {
      TrainerOptions options;
      options.mesh = c.mesh;
      options.schedule = c.schedule;
      options.microbatches = 4 / c.mesh.data;
      options.checkpoint_layers = c.checkpoint_layers;
      options.bucket_mib = 0.001;  // one parameter a bucket
      PipelineTrainer trainer(world, specs, options);
      for (int step = 0; step < 6; ++step) {
        const at::Tensor x = at::tensor_split(inputs_of(step, 8)[0], c.mesh.data, 0)[static_cast<size_t>(trainer.replica())];
        const auto outcome = trainer.train_batch({x}, {x.abs()}, squared_error, 1e-2);
        if (world.rank() == 0) all.push_back(outcome.loss);
      }
    });
    return all;
  };
  const auto whole = losses({{1, 1, 1}, "gpipe", 0});
  for (const Case& c : {Case{{1, 2, 1}, "1f1b", 1}, {{2, 2, 1}, "1f1b", 1}, {{3, 1, 1}, "zb-h1", 0}, {{2, 2, 1}, "zb-v", 1}, {{1, 2, 1}, "zb-v", 0}, {{2, 1, 1}, "interleaved-1f1b", 2}}) {
    SCOPED_TRACE(fmt::format("{} on {} x {}, recomputing {}", c.schedule, c.mesh.pipe, c.mesh.data, c.checkpoint_layers));
    const auto cut = losses(c);
    ASSERT_EQ(cut.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(cut[i], whole[i], 2e-6 * whole[i]) << "step " << i;
  }
}

TEST(PipelineTrainer, TiesThatAreWrittenDownWronglyAreRefused) {
  const auto message = [](std::vector<std::string> tied) {
    const LayerSpec shared{"shared", "Shared", 64, [](model::SharedWeights& weights) { return std::make_unique<Shared>(weights); }, std::move(tied)};
    std::string text = "accepted";
    comm::spawn_ranks(2, [&](comm::Communicator& world) {
      TrainerOptions options;
      options.mesh.pipe = 2;
      try {
        PipelineTrainer trainer(world, {shared, shared}, options);
      } catch (const Error& e) {
        if (world.rank() == 0) text = e.message();
      }
    });
    return text;
  };
  EXPECT_EQ(message({"shared"}), "accepted");
  EXPECT_NE(message({"sharde"}).find("'sharde' is listed in LayerSpec::tied, but no layer here has a parameter of that name"), std::string::npos);
  EXPECT_NE(message({}).find("'shared' comes from SharedWeights, but no LayerSpec lists it"), std::string::npos);
}

TEST(PipelineTrainer, TrainsWithAScheduleFromAFile) {
  const TempDir folder;
  const auto file = folder.path() / "mine.csv";
  write_file_atomic(file, "0F0,0F1,0B0,0F2,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n");
  TrainerOptions options;
  options.mesh = {2, 1, 1};
  options.microbatches = 3;
  options.schedule = file.string();
  TrainerOptions single;
  single.microbatches = 3;
  expect_same(train(options), train(single));
  options.microbatches = 4;
  EXPECT_NE(refusal(options).find("expected 2 ranks and 4 micro-batches as configured, found 2 and 3"), std::string::npos);
  options.schedule = "forward";
  EXPECT_NE(refusal(options).find("no backward actions"), std::string::npos);
}

}  // namespace
}  // namespace penstock::train
