// The library's own face: layers of any kind, trained on a mesh of threads.
#include "train/pipeline_trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "base/mutex.h"
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

// Multiplies by the second tensor, an integer one from the input, and adds a third that wants a gradient.
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
  options.shard_optimizer = true;
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

TEST(PipelineTrainer, RefusesABatchThatIsTooSmall) {
  TrainerOptions options;
  options.microbatches = 9;
  const auto messages = complaints(options, [](Tensors&, Tensors&) {});
  EXPECT_NE(messages[0].find("tensor 0 of shape [8, 8] cannot be cut into 9 along dim 0; use at most 8 micro-batches"), std::string::npos) << messages[0];
}

}  // namespace
}  // namespace penstock::train
