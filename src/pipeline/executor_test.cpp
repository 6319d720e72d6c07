#include "pipeline/executor.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/spawn_ranks.h"
#include "kernels/cross_entropy.h"
#include "model/families.h"
#include "pipeline/microbatch.h"
#include "plan/partition.h"
#include "plan/schedule_check.h"

namespace penstock::pipeline {
namespace {

constexpr int kMicrobatches = 4;

model::TransformerConfig small_model() {
  model::TransformerConfig c;
  c.vocab_size = 19;
  c.hidden_size = 16;
  c.num_layers = 6;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_size = 4;
  c.intermediate_size = 24;
  c.max_position_embeddings = 16;
  return c;
}

std::vector<Microbatch> batch(int count, bool uneven) {
  at::manual_seed(3);
  std::vector<Microbatch> out;
  for (int m = 0; m < count; ++m) {
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

struct Options {
  std::string schedule = "1f1b";
  int ranks = 1;
  int microbatches = kMicrobatches;
  int chunks = 0;
  bool uneven = false;
  int checkpoint_layers = 0;
  int steps = 1;
  bool tied = false;
};

plan::Schedule make(const Options& o) { return plan::proven(plan::make_schedule({o.schedule, o.ranks, o.microbatches, o.chunks}).value()); }

std::vector<int> cut(int layers, int stages) { return plan::partition(std::vector<double>(static_cast<size_t>(layers), 1), {"uniform", stages, false, 0}).value(); }

// Steps over ranks as threads; gradients of all stages by parameter name.
Outcome run(const Options& o) {
  const plan::Schedule schedule = make(o);
  auto config = small_model();
  config.tie_word_embeddings = o.tied;
  const auto specs = model::transformer_layers(config);
  const auto boundaries = cut(static_cast<int>(specs.size()), schedule.num_stages);
  const auto microbatches = batch(o.microbatches, o.uneven);
  Outcome outcome;
  Mutex mutex;
  comm::spawn_ranks(o.ranks, [&](comm::Communicator& pipe) {
    model::SharedWeights shared;
    std::vector<std::unique_ptr<Stage>> stages;
    std::vector<Stage*> mine;
    for (const int index : schedule.stages_of(pipe.rank())) {
      stages.push_back(std::make_unique<Stage>(specs, boundaries, index, o.checkpoint_layers, &shared));
      mine.push_back(stages.back().get());
      for (auto& p : stages.back()->parameters()) model::initialize(p, 7);
    }
    Executor executor(pipe, mine, seconds(20));
    StepRequest request;
    request.schedule = &schedule;
    request.microbatches = microbatches;
    request.loss = loss_of;
    request.loss_scale = 0.01;
    for (int step = 0; step < o.steps; ++step) {
      const StepResult result = executor.run(request);
      MutexLock lock(mutex);
      outcome.loss += result.loss_sum;
    }
    MutexLock lock(mutex);
    for (const auto& stage : stages) {
      for (auto& p : stage->parameters()) {
        auto& sum = outcome.gradients[p.name];
        sum = sum.defined() && !o.tied ? sum : sum.defined() && o.ranks > 1 ? sum + p.value.grad() : p.value.grad().clone();
      }
    }
  });
  return outcome;
}

void expect_equal(const Outcome& got, const Outcome& expected) {
  EXPECT_DOUBLE_EQ(got.loss, expected.loss);
  ASSERT_EQ(got.gradients.size(), expected.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) EXPECT_TRUE(gradient.equal(got.gradients.at(name))) << name;
}

// Up to the order of sums.
void expect_close(const Outcome& got, const Outcome& expected, double relative = 1e-6) {
  EXPECT_NEAR(got.loss, expected.loss, relative * expected.loss);
  ASSERT_EQ(got.gradients.size(), expected.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) {
    const double error = (got.gradients.at(name) - gradient).norm().item<double>();
    EXPECT_LE(error, relative * gradient.norm().item<double>()) << name;
  }
}

TEST(Executor, GivesTheSameGradientsHoweverTheModelIsCut) {
  const Outcome whole = run({.schedule = "gpipe"});
  EXPECT_GT(whole.loss, 1);
  for (const int ranks : {2, 3, 5}) expect_equal(run({.schedule = "gpipe", .ranks = ranks}), whole);
}

TEST(Executor, OneForwardOneBackwardEqualsGpipeBitwise) {
  // Both run backwards by rising micro-batch: the same order of sums.
  expect_equal(run({.schedule = "1f1b", .ranks = 2}), run({.schedule = "gpipe", .ranks = 2}));
}

// Every schedule on 1 to 4 ranks with 1 to 9 micro-batches.
class EverySchedule : public testing::TestWithParam<std::string> {};

TEST_P(EverySchedule, GivesTheGradientsOfOneProcess) {
  int runs = 0;
  for (int microbatches = 1; microbatches <= 9; ++microbatches) {
    const Outcome whole = run({.schedule = "gpipe", .microbatches = microbatches});
    for (int ranks = 1; ranks <= 4; ++ranks) {
      if (!plan::make_schedule({GetParam(), ranks, microbatches, 0}).ok()) continue;
      SCOPED_TRACE(fmt::format("{} ranks, {} micro-batches", ranks, microbatches));
      expect_close(run({.schedule = GetParam(), .ranks = ranks, .microbatches = microbatches}), whole);
      ++runs;
    }
  }
  EXPECT_GE(runs, 16);
}

INSTANTIATE_TEST_SUITE_P(Executor, EverySchedule,
                         testing::Values("gpipe", "1f1b", "eager-1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "zb-v", "dualpipev"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(Executor, RunsMoreChunksThanAScheduleHasByItself) {
  const Outcome whole = run({.schedule = "gpipe"});
  expect_close(run({.schedule = "interleaved-1f1b", .ranks = 2, .chunks = 4}), whole);
  expect_close(run({.schedule = "zb-h1", .ranks = 2, .chunks = 3}), whole);
  expect_close(run({.schedule = "looped-bfs", .ranks = 2, .chunks = 4}), whole);
}

TEST(Executor, GoesOnAfterAStepThatFailed) {
  const auto specs = model::transformer_layers(small_model());
  const auto schedule = make({});
  const Outcome whole = run({});
  comm::spawn_ranks(1, [&](comm::Communicator& pipe) {
    Stage stage(specs, std::vector<int>{0, 8}, 0, 2);
    for (auto& p : stage.parameters()) model::initialize(p, 7);
    Executor executor(pipe, {&stage}, seconds(20));
    auto microbatches = batch(kMicrobatches, false);
    const auto good = microbatches[2].inputs;
    StepRequest request;
    request.schedule = &schedule;
    request.loss = loss_of;
    request.loss_scale = 0.01;
    microbatches[2].inputs = {at::full({2, 8}, 1000, at::kLong)};  // no such row in the embedding
    request.microbatches = microbatches;
    try {
      (void)executor.run(request);
      ADD_FAILURE() << "expected an Error";
    } catch (const Error& e) {
      EXPECT_NE(e.message().find("rank 0, stage 0, action F of micro-batch 2:"), std::string::npos) << e.message();
    }
    for (auto& p : stage.parameters()) p.value.mutable_grad() = at::Tensor();
    microbatches[2].inputs = good;
    request.microbatches = microbatches;
    (void)executor.run(request);
    for (auto& p : stage.parameters()) EXPECT_TRUE(p.value.grad().equal(whole.gradients.at(p.name))) << p.name;
  });
}

TEST(BufferPool, UsesABufferAgainWhenNobodyHoldsIt) {
  BufferPool pool;
  const void* first = nullptr;
  {
    const at::Tensor a = pool.take({4, 3}, at::kFloat), b = pool.take({4, 3}, at::kFloat);
    EXPECT_NE(a.data_ptr(), b.data_ptr());
    first = a.data_ptr();
  }
  const at::Tensor kept = pool.take({4, 3}, at::kFloat), other = pool.take({4, 3}, at::kFloat);
  EXPECT_TRUE(kept.data_ptr() == first || other.data_ptr() == first);
  EXPECT_EQ(pool.num_buffers(), 2u);
  (void)pool.take({4, 3}, at::kLong);
  EXPECT_EQ(pool.num_buffers(), 3u) << "another dtype";
  for (int64_t step = 0; step <= BufferPool::kForgetAfter + 1; ++step) pool.end_step();
  EXPECT_EQ(pool.num_buffers(), 2u) << "only what is in use is kept";
}

TEST(Microbatch, SplitsAsTensorSplitDoesAndMergesAgain) {
  const at::Tensor rows = at::arange(20).view({10, 2}), columns = at::arange(20).view({2, 10}), whole = at::ones({3});
  const SplitRule rules[] = {{false, 0}, {false, 1}, {true, 0}};
  const auto parts = split({rows, columns, whole}, 4, rules);
  ASSERT_EQ(parts.size(), 4u);
  const int64_t expected[] = {3, 3, 2, 2};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(parts[i][0].size(0), expected[i]);
    EXPECT_EQ(parts[i][1].size(1), expected[i]);
    EXPECT_TRUE(parts[i][2].is_same(whole));
  }
  const MergeRule back[] = {{0, {}}, {1, {}}, {0, [](const at::Tensor& a, const at::Tensor& b) { return a + b; }}};
  const auto merged = merge_outputs(parts, back);
  EXPECT_TRUE(merged[0].equal(rows));
  EXPECT_TRUE(merged[1].equal(columns));
  EXPECT_TRUE(merged[2].equal(4 * whole));
}

TEST(Microbatch, NamesTheTensorThatCannotBeSplit) {
  const auto complaint = [](const model::Tensors& tensors, int count, std::vector<SplitRule> rules = {}) {
    try {
      (void)split(tensors, count, rules);
    } catch (const Error& e) {
      return e.message();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(complaint({at::ones({3, 2})}, 4), "micro-batches: tensor 0 of shape [3, 2] cannot be cut into 4 along dim 0; use at most 3 micro-batches");
  EXPECT_EQ(complaint({at::ones({4}), at::ones({5})}, 2), "micro-batches: tensor 1 of shape [5] has 5 rows along dim 0, the others have 4");
  EXPECT_EQ(complaint({at::ones({4})}, 2, {{false, 1}}), "micro-batches: tensor 0 has shape [4], no dim 1 to cut");
  EXPECT_EQ(complaint({at::ones({4})}, 0), "micro-batches: expected at least 1, found 0");
}

TEST(Executor, ComputingActivationsAgainChangesNoBit) {
  for (const char* schedule : {"1f1b", "zb-h1", "zb-v"}) {
    SCOPED_TRACE(schedule);
    const Outcome kept = run({.schedule = schedule, .ranks = 2});
    for (const int layers : {1, 2, 100}) expect_equal(run({.schedule = schedule, .ranks = 2, .checkpoint_layers = layers}), kept);
  }
}

TEST(Executor, ATiedWeightOnOneRankIsOneWeight) {
  const Outcome whole = run({.schedule = "gpipe", .tied = true});
  expect_close(run({.schedule = "zb-v", .ranks = 1, .tied = true}), whole);
  expect_close(run({.schedule = "interleaved-1f1b", .ranks = 1, .tied = true}), whole);
}

TEST(Executor, StepsAddUp) {
  Outcome one = run({.schedule = "1f1b", .ranks = 3, .uneven = true}), three = run({.schedule = "1f1b", .ranks = 3, .uneven = true, .steps = 3});
  EXPECT_DOUBLE_EQ(three.loss, 3 * one.loss);
  for (auto& [name, gradient] : one.gradients) gradient = gradient * 3;
  one.loss *= 3;
  expect_close(three, one);
}

TEST(Executor, TakesMicrobatchesOfDifferentShapes) {
  expect_equal(run({.ranks = 3, .uneven = true}), run({.schedule = "gpipe", .uneven = true}));
}

TEST(Executor, RunsForwardOnlyAndKeepsNoGraph) {
  const Outcome whole = run({.schedule = "gpipe"});
  const auto schedule = make({.schedule = "forward", .ranks = 2});
  const auto specs = model::transformer_layers(small_model());
  const auto microbatches = batch(kMicrobatches, false);
  double loss = 0;
  comm::spawn_ranks(2, [&](comm::Communicator& pipe) {
    Stage stage(specs, cut(8, 2), pipe.rank());
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
  const auto specs = model::transformer_layers(small_model());
  const auto schedule = make({});
  comm::spawn_ranks(1, [&](comm::Communicator& pipe) {
    Stage stage(specs, std::vector<int>{0, 8}, 0);
    for (auto& p : stage.parameters()) model::initialize(p, 7);
    Executor executor(pipe, {&stage}, seconds(20));
    const auto microbatches = batch(kMicrobatches, false);
    int calls = 0;
    StepRequest request;
    request.schedule = &schedule;
    request.microbatches = microbatches;
    request.loss = loss_of;
    request.before_last_backward = [&](int s, const auto* pending) { calls += s == 0 && pending == nullptr ? 1 : 100; };
    const StepResult result = executor.run(request);
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(result.records.size(), schedule.ranks[0].size());
  });
}

TEST(Executor, NamesRankStageActionAndMicrobatchWhenAPeerIsGone) {
  const auto specs = model::transformer_layers(small_model());
  const auto schedule = make({.ranks = 2, .microbatches = 2});
  std::string message;
  comm::spawn_ranks(2, [&](comm::Communicator& pipe) {
    if (pipe.rank() == 0) return;  // never sends
    Stage stage(specs, std::vector<int>{0, 2, 8}, 1);
    Executor executor(pipe, {&stage}, seconds(1));
    const auto microbatches = batch(2, false);
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

// A group whose third message cannot be sent.
class BrokenLink : public comm::Communicator {
 public:
  explicit BrokenLink(comm::Communicator& inner) : inner_(inner) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& name() const override { return inner_.name(); }
  comm::WorkPtr send(const at::Tensor& tensor, int to, int tag) override {
    if (++sends_ == 3) throw error(Code::kUnavailable, "the cable is cut");
    return inner_.send(tensor, to, tag);
  }
  comm::WorkPtr recv(at::Tensor& tensor, int from, int tag) override { return inner_.recv(tensor, from, tag); }
  comm::WorkPtr all_reduce(at::Tensor& tensor, comm::Reduce op) override { return inner_.all_reduce(tensor, op); }
  comm::WorkPtr broadcast(at::Tensor& tensor, int root) override { return inner_.broadcast(tensor, root); }
  comm::WorkPtr reduce_scatter(at::Tensor& flat, std::span<const int64_t> offsets) override { return inner_.reduce_scatter(flat, offsets); }
  comm::WorkPtr all_gather(at::Tensor& flat, std::span<const int64_t> offsets) override { return inner_.all_gather(flat, offsets); }
  comm::WorkPtr all_reduce_rounded(at::Tensor& tensor, at::Tensor& residual) override { return inner_.all_reduce_rounded(tensor, residual); }
  comm::WorkPtr barrier() override { return inner_.barrier(); }
  std::unique_ptr<comm::Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    return inner_.split(ranks, name, deadline);
  }

 private:
  comm::Communicator& inner_;
  int sends_ = 0;
};

TEST(Executor, NamesRankStageActionAndMicrobatchOfASendThatFailsOnEveryRank) {
  const auto specs = model::transformer_layers(small_model());
  const auto schedule = make({.ranks = 2, .microbatches = 4});
  std::vector<std::string> messages(2);
  try {
    comm::spawn_ranks(2, [&](comm::Communicator& plain) {
      BrokenLink broken(plain);
      comm::Communicator& pipe = plain.rank() == 0 ? static_cast<comm::Communicator&>(broken) : plain;
      Stage stage(specs, std::vector<int>{0, 2, 8}, pipe.rank());
      for (auto& p : stage.parameters()) model::initialize(p, 7);
      Executor executor(pipe, {&stage}, seconds(20));
      const auto microbatches = batch(4, false);
      StepRequest request;
      request.schedule = &schedule;
      request.microbatches = microbatches;
      request.loss = loss_of;
      try {
        (void)executor.run(request);
      } catch (const Error& e) {
        messages[static_cast<size_t>(pipe.rank())] = e.message();
        throw;
      }
    });
    FAIL() << "expected an Error";
  } catch (const Error&) {
  }
  const char* expected = "rank 0, stage 0, action SEND_F of micro-batch 1: the cable is cut";
  EXPECT_EQ(messages[0], expected);
  EXPECT_NE(messages[1].find(expected), std::string::npos) << messages[1];
}

TEST(Stage, SharesATiedWeightWithinAStageAndCountsItOnce) {
  auto config = small_model();
  config.tie_word_embeddings = true;
  Stage whole(model::transformer_layers(config), std::vector<int>{0, 8}, 0);
  int64_t count = 0;
  for (const auto& p : whole.parameters()) count += p.value.numel();
  EXPECT_EQ(count, model::num_parameters(config));
  Stage last(model::transformer_layers(config), std::vector<int>{0, 3, 8}, 1);
  EXPECT_EQ(last.parameters().back().name, "model.embed_tokens.weight") << "the last stage has a copy of its own";
}

TEST(Stage, RefusesBoundariesThatLeaveLayersOut) {
  EXPECT_THROW(Stage(model::transformer_layers(small_model()), std::vector<int>{0, 2, 4}, 0), Bug);
}

}  // namespace
}  // namespace penstock::pipeline
