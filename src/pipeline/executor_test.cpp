#include "pipeline/executor.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/spawn_ranks.h"
#include "kernels/cross_entropy.h"
#include "model/llama.h"
#include "plan/partition.h"

namespace penstock::pipeline {
namespace {

constexpr int kMicrobatches = 4;

model::LlamaConfig small_model() {
  model::LlamaConfig c;
  c.vocab_size = 19;
  c.hidden_size = 16;
  c.num_layers = 3;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_size = 4;
  c.intermediate_size = 24;
  c.max_position_embeddings = 16;
  return c;
}

std::vector<Microbatch> batch(bool uneven) {
  at::manual_seed(3);
  std::vector<Microbatch> out;
  for (int m = 0; m < kMicrobatches; ++m) {
    const int rows = uneven ? m + 1 : 2;
    const int length = uneven ? 5 + m : 8;
    out.push_back({{at::randint(19, {rows, length}, at::kLong)}, {at::randint(19, {rows, length}, at::kLong)}});
  }
  return out;
}

at::Tensor loss_of(const model::Tensors& outputs, const model::Tensors& targets) { return kernels::cross_entropy_sum(outputs[0], targets[0]); }

struct Outcome {
  double loss = 0;
  std::map<std::string, at::Tensor> gradients;
};

// One step over `ranks` stages as threads; gradients of all stages by parameter name.
Outcome run(int ranks, const plan::Schedule& compute, bool uneven = false) {
  const auto schedule = plan::with_communication(compute);
  const auto specs = model::llama_layers(small_model());
  const auto boundaries = plan::partition_uniform(static_cast<int>(specs.size()), ranks).value();
  const auto microbatches = batch(uneven);
  Outcome outcome;
  Mutex mutex;
  comm::spawn_ranks(ranks, [&](comm::Communicator& pipe) {
    Stage stage(specs, boundaries, pipe.rank());
    for (auto& p : stage.parameters()) model::initialize(p, 7);
    Executor executor(pipe, {&stage}, seconds(20));
    StepRequest request;
    request.schedule = &schedule;
    request.microbatches = microbatches;
    request.loss = loss_of;
    request.loss_scale = 0.01;
    const StepResult result = executor.run(request);
    MutexLock lock(mutex);
    outcome.loss += result.loss_sum;
    for (auto& p : stage.parameters()) outcome.gradients[p.name] = p.value.grad().clone();
  });
  return outcome;
}

void expect_equal(const Outcome& got, const Outcome& expected) {
  EXPECT_DOUBLE_EQ(got.loss, expected.loss);
  ASSERT_EQ(got.gradients.size(), expected.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) EXPECT_TRUE(gradient.equal(got.gradients.at(name))) << name;
}

TEST(Executor, GivesTheSameGradientsHoweverTheModelIsCutAndTheStepIsScheduled) {
  const Outcome whole = run(1, plan::gpipe(1, kMicrobatches));
  EXPECT_GT(whole.loss, 1);
  for (const int ranks : {2, 3, 5}) {
    expect_equal(run(ranks, plan::gpipe(ranks, kMicrobatches)), whole);
  }
}

TEST(Executor, OneForwardOneBackwardEqualsGpipeUpToTheOrderOfSums) {
  const Outcome gpipe = run(2, plan::gpipe(2, kMicrobatches));
  expect_equal(run(2, plan::one_f_one_b(2, kMicrobatches)), gpipe);  // both run backwards by rising micro-batch: the same order of sums
}

TEST(Executor, TakesMicrobatchesOfDifferentShapes) {
  expect_equal(run(3, plan::one_f_one_b(3, kMicrobatches), true), run(1, plan::gpipe(1, kMicrobatches), true));
}

TEST(Executor, RunsForwardOnlyAndKeepsNoGraph) {
  const Outcome whole = run(1, plan::gpipe(1, kMicrobatches));
  const auto schedule = plan::with_communication(plan::forward_only(2, kMicrobatches));
  const auto specs = model::llama_layers(small_model());
  const auto microbatches = batch(false);
  double loss = 0;
  comm::spawn_ranks(2, [&](comm::Communicator& pipe) {
    Stage stage(specs, plan::partition_uniform(5, 2).value(), pipe.rank());
    for (auto& p : stage.parameters()) model::initialize(p, 7);
    Executor executor(pipe, {&stage}, seconds(20));
    StepRequest request;
    request.schedule = &schedule;
    request.microbatches = microbatches;
    request.loss = loss_of;
    request.training = false;
    const double sum = executor.run(request).loss_sum;
    if (stage.is_last()) loss = sum;
    for (auto& p : stage.parameters()) EXPECT_FALSE(p.value.grad().defined()) << p.name;
  });
  EXPECT_DOUBLE_EQ(loss, whole.loss);
}

TEST(Executor, AnnouncesTheLastBackwardOfAStageOnce) {
  const auto specs = model::llama_layers(small_model());
  const auto schedule = plan::with_communication(plan::one_f_one_b(1, kMicrobatches));
  comm::spawn_ranks(1, [&](comm::Communicator& pipe) {
    Stage stage(specs, std::vector<int>{0, 5}, 0);
    for (auto& p : stage.parameters()) model::initialize(p, 7);
    Executor executor(pipe, {&stage}, seconds(20));
    const auto microbatches = batch(false);
    int calls = 0;
    StepRequest request;
    request.schedule = &schedule;
    request.microbatches = microbatches;
    request.loss = loss_of;
    request.before_last_backward = [&](int s) { calls += s == 0 ? 1 : 100; };
    const StepResult result = executor.run(request);
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(result.records.size(), schedule.ranks[0].size());
  });
}

TEST(Executor, NamesRankStageActionAndMicrobatchWhenAPeerIsGone) {
  const auto specs = model::llama_layers(small_model());
  const auto schedule = plan::with_communication(plan::one_f_one_b(2, 2));
  std::string message;
  comm::spawn_ranks(2, [&](comm::Communicator& pipe) {
    if (pipe.rank() == 0) return;  // never sends
    Stage stage(specs, std::vector<int>{0, 2, 5}, 1);
    Executor executor(pipe, {&stage}, seconds(1));
    const auto microbatches = batch(false);
    StepRequest request;
    request.schedule = &schedule;
    request.microbatches = microbatches;
    request.loss = loss_of;
    try {
      (void)executor.run(request);
    } catch (const Error& e) {
      message = e.message();
    }
  });
  EXPECT_NE(message.find("rank 1, stage 1, action RECV_F of micro-batch 0"), std::string::npos) << message;
}

TEST(Stage, SharesATiedWeightWithinAStageAndCountsItOnce) {
  auto config = small_model();
  config.tie_word_embeddings = true;
  Stage whole(model::llama_layers(config), std::vector<int>{0, 5}, 0);
  int64_t count = 0;
  for (const auto& p : whole.parameters()) count += p.value.numel();
  EXPECT_EQ(count, config.parameters());
  Stage last(model::llama_layers(config), std::vector<int>{0, 3, 5}, 1);
  EXPECT_EQ(last.parameters().back().name, "model.embed_tokens.weight") << "the last stage has a copy of its own";
}

TEST(Stage, RefusesBoundariesThatLeaveLayersOut) {
  EXPECT_THROW(Stage(model::llama_layers(small_model()), std::vector<int>{0, 2, 4}, 0), Bug);
}

}  // namespace
}  // namespace penstock::pipeline
