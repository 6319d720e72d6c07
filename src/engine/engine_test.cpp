// Sampling, scheduling, and whole engines of one and several stages against a plain forward loop without a cache.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/temp_dir.h"
#include "comm/spawn_ranks.h"
#include "engine/pipeline_engine.h"
#include "engine/stage_loop.h"
#include "model/families.h"
#include "model/parameter_io.h"
#include "weights/hf_directory.h"
#include "weights/hf_writer.h"

#include "base/file.h"

namespace penstock::engine {
namespace {

TEST(Sample, GreedyTakesTheLargestAndTheLowestIdAmongEquals) {
  const std::vector<float> logits{1, 3, 3, -2};
  EXPECT_EQ(sample(logits, {.temperature = 0}), 1);
}

TEST(Sample, DependsOnSeedAndPositionAlone) {
  std::vector<float> logits(50);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  std::set<int32_t> by_position, by_seed;
  for (int i = 0; i < 50; ++i) {
    by_position.insert(sample(logits, {.seed = 1, .position = i}));
    by_seed.insert(sample(logits, {.seed = static_cast<uint64_t>(i), .position = 1}));
    EXPECT_EQ(sample(logits, {.seed = 9, .position = i}), sample(logits, {.seed = 9, .position = i}));
  }
  EXPECT_GT(by_position.size(), 10u);
  EXPECT_GT(by_seed.size(), 10u);
}

TEST(Sample, FollowsTheSoftmaxAndItsCuts) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  const auto shares = [&](SamplingChoice choice) {
    std::vector<double> count(4);
    for (int i = 0; i < 20000; ++i) {
      choice.position = i;
      count[static_cast<size_t>(sample(logits, choice))] += 1.0 / 20000;
    }
    return count;
  };
  EXPECT_NEAR(shares({.seed = 3})[1], 0.3, 0.02);
  EXPECT_NEAR(shares({.temperature = 0.5, .seed = 3})[0], 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), 0.02);
  const auto top_k = shares({.top_k = 2, .seed = 3});
  EXPECT_NEAR(top_k[0], 0.625, 0.02);
  EXPECT_EQ(top_k[2] + top_k[3], 0);
  const auto top_p = shares({.top_p = 0.79, .seed = 3});
  EXPECT_GT(top_p[1], 0);
  EXPECT_EQ(top_p[2] + top_p[3], 0) << "the smallest set that reaches 0.79 is the first two";
}

TEST(StepPlan, SurvivesTheWire) {
  StepPlan plan{StepKind::kCompute, {{3, 10, 1, true, {0.7, 5, 0.9, 0xFFFFFFFFFFFFFFFFull, 11}}, {0, 0, 64, false, {}}}};
  const StepPlan again = decode(encode(plan, 4), 4);
  EXPECT_EQ(encode(again, 4), encode(plan, 4));
  EXPECT_EQ(again.rows(), 65);
  EXPECT_EQ(again.samples(), 1);
  auto broken = encode(plan, 4);
  broken[1] = 5;
  EXPECT_THROW((void)decode(broken, 4), Error);
}

SequenceInput input(int prompt, int max_tokens) { return {std::vector<int32_t>(static_cast<size_t>(prompt), 7), max_tokens, {}}; }

TEST(BatchScheduler, CutsALongPromptAndSamplesAtItsEndOnly) {
  BatchScheduler scheduler({.max_sequences = 2, .max_waiting = 4, .max_step_rows = 10, .max_sequence_tokens = 100, .num_stages = 1});
  ASSERT_TRUE(scheduler.add(1, input(25, 2)));
  std::vector<int> counts;
  for (;;) {
    const auto step = scheduler.next();
    ASSERT_TRUE(step);
    counts.push_back(step->plan.rows());
    const bool samples = step->plan.samples() == 1;
    const auto got = scheduler.complete(*step, samples ? std::vector<int32_t>{5} : std::vector<int32_t>{});
    if (samples && got[0].at_limit) break;
  }
  EXPECT_EQ(counts, (std::vector<int>{10, 10, 5, 1}));
}

TEST(BatchScheduler, KeepsDisjointStepsInFlightOneForEachStage) {
  BatchScheduler scheduler({.max_sequences = 8, .max_waiting = 8, .max_step_rows = 100, .max_sequence_tokens = 100, .num_stages = 2});
  for (RequestId id = 1; id <= 5; ++id) ASSERT_TRUE(scheduler.add(id, input(2, 9)));
  const auto first = scheduler.next(), second = scheduler.next();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->ids.size(), 3u) << "ceil(5 / 2)";
  EXPECT_EQ(second->ids.size(), 2u);
  std::set<RequestId> all(first->ids.begin(), first->ids.end());
  all.insert(second->ids.begin(), second->ids.end());
  EXPECT_EQ(all.size(), 5u) << "a sequence is in one step at a time";
  EXPECT_FALSE(scheduler.next());
}

TEST(BatchScheduler, ARemovedSequenceIsInNoLaterStepAndItsSlotIsUsedAgain) {
  BatchScheduler scheduler({.max_sequences = 1, .max_waiting = 4, .max_step_rows = 100, .max_sequence_tokens = 100, .num_stages = 1});
  ASSERT_TRUE(scheduler.add(1, input(2, 50)));
  ASSERT_TRUE(scheduler.add(2, input(2, 50)));
  const auto step = scheduler.next();
  scheduler.remove(1);
  EXPECT_FALSE(scheduler.next()) << "its slot is still being written";
  EXPECT_TRUE(scheduler.complete(*step, {5}).empty());
  const auto next = scheduler.next();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->ids, std::vector<RequestId>{2});
  scheduler.remove(2);
  EXPECT_TRUE(scheduler.complete(*next, {5}).empty());
  EXPECT_TRUE(scheduler.idle());
}

TEST(BatchScheduler, RefusesMoreThanItMayKeepWaiting) {
  BatchScheduler scheduler({.max_sequences = 1, .max_waiting = 1, .max_step_rows = 100, .max_sequence_tokens = 100, .num_stages = 1});
  EXPECT_TRUE(scheduler.add(1, input(2, 50)));
  EXPECT_FALSE(scheduler.add(2, input(2, 50)));
}

// Collects a generation's events and lets a test wait for its end.
class Collector : public EventSink {
 public:
  bool push(GenerationEvent event) override {
    MutexLock lock(mutex_);
    text_ += event.text;
    if (event.token_id >= 0) ids_.push_back(event.token_id);
    ++events_;
    if (event.finished) last_ = event;
    changed_.notify_all();
    return true;
  }
  GenerationEvent wait() {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(60));
    while (!last_) {
      if (!changed_.wait(mutex_, deadline)) throw std::runtime_error("no end within a minute");
    }
    return *last_;
  }
  void wait_events(int count) {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(60));
    while (events_ < count && !last_) {
      if (!changed_.wait(mutex_, deadline)) throw std::runtime_error("no events within a minute");
    }
  }
  std::vector<int32_t> ids() {
    MutexLock lock(mutex_);
    return ids_;
  }
  std::string text() {
    MutexLock lock(mutex_);
    return text_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::string text_;
  std::vector<int32_t> ids_;
  int events_ = 0;
  std::optional<GenerationEvent> last_;
};

// A random model of real structure in a Hugging Face directory.
class EngineTest : public testing::Test {
 protected:
  static constexpr int kLength = 96;

  EngineTest() {
    config_.vocab_size = 257;
    config_.hidden_size = 32;
    config_.num_layers = 4;
    config_.num_heads = 4;
    config_.num_kv_heads = 2;
    config_.head_size = 8;
    config_.intermediate_size = 48;
    config_.max_position_embeddings = kLength;
    config_.initializer_range = 0.3;  // lively logits: greedy choices without near ties
    config_.eos_token_id = 256;
    const auto specs = model::transformer_layers(config_);
    whole_ = std::make_unique<pipeline::Stage>(specs, std::vector<int>{0, static_cast<int>(specs.size())}, 0);
    std::vector<weights::NamedTensor> tensors;
    for (auto& p : whole_->parameters()) {
      model::initialize(p, 11);
      for (auto& part : model::stored_parts(p, p.value)) tensors.push_back(part);
    }
    weights::write_hf_weights(dir_.path(), tensors, 1 << 30);
    write_file_atomic(dir_.path() / "config.json", model::to_config_json(config_));
    text::write_tokenizer_files(dir_.path());
  }

  // Greedy, the whole sequence computed anew for every token.
  std::vector<int32_t> plain_greedy(const std::string& prompt, int count) {
    at::NoGradGuard no_grad;
    std::vector<int64_t> ids;
    for (const auto id : text::byte_tokenizer().encode(prompt)) ids.push_back(id);
    std::vector<int32_t> out;
    for (int i = 0; i < count; ++i) {
      const at::Tensor logits = whole_->forward({at::tensor(ids, at::kLong).unsqueeze(0)}, {}).at(0)[0][static_cast<int64_t>(ids.size()) - 1];
      out.push_back(static_cast<int32_t>(logits.argmax().item<int64_t>()));
      ids.push_back(out.back());
      if (out.back() == 256) break;
    }
    return out;
  }

  // Runs `use` against an engine of this many stages as threads.
  void with_engine(int stages, const std::function<void(PipelineEngine&)>& use, PipelineEngineOptions options = {}) {
    comm::spawn_ranks(stages, [&](comm::Communicator& ranks) {
      StageRunner runner({dir_.path(), ranks.rank(), stages, options.max_sequences, 0, kernels::Compute::kFp32});
      if (ranks.rank() > 0) return run_stage(runner, ranks, options.max_sequences, seconds(20));
      PipelineEngine engine(runner, ranks, text::byte_tokenizer(), options);
      use(engine);
    });
  }

  static text::GenerationRequest greedy(const std::string& prompt, int max_tokens) {
    text::GenerationRequest request;
    request.prompt = prompt;
    request.sampling.temperature = 0;
    request.sampling.max_tokens = max_tokens;
    return request;
  }

  TempDir dir_;
  model::TransformerConfig config_;
  std::unique_ptr<pipeline::Stage> whole_;
};

TEST_F(EngineTest, OneTwoAndThreeStagesGiveTheTokensOfAPlainLoopForTwentyPrompts) {
  std::vector<std::string> prompts;
  std::vector<std::vector<int32_t>> expected;
  for (int i = 0; i < 20; ++i) {
    prompts.push_back(std::string(static_cast<size_t>(1 + i * 3), static_cast<char>('a' + i)) + " prompt " + std::to_string(i));
    expected.push_back(plain_greedy(prompts.back(), 16));
  }
  for (const int stages : {1, 2, 3}) {
    with_engine(stages, [&](PipelineEngine& engine) {
      std::vector<std::shared_ptr<Collector>> sinks;
      for (const auto& prompt : prompts) {
        sinks.push_back(std::make_shared<Collector>());
        ASSERT_TRUE(engine.submit(greedy(prompt, 16), sinks.back()).ok());
      }
      for (size_t i = 0; i < prompts.size(); ++i) {
        const auto last = sinks[i]->wait();
        EXPECT_EQ(sinks[i]->ids(), expected[i]) << stages << " stages, prompt " << i;
        EXPECT_EQ(last.usage.completion_tokens, static_cast<int>(expected[i].size()));
        EXPECT_EQ(last.usage.prompt_tokens, static_cast<int>(prompts[i].size()));
      }
    });
  }
}

TEST_F(EngineTest, SpecialTokensOfAConversationCountThoseOfATextDoNotAndIdsAreUsedAsTheyAre) {
  with_engine(1, [&](PipelineEngine& engine) {
    const auto prompt_tokens = [&](text::GenerationRequest request) {
      const auto sink = std::make_shared<Collector>();
      EXPECT_TRUE(engine.submit(request, sink).ok());
      return sink->wait().usage.prompt_tokens;
    };
    auto request = greedy("ab<|end|>", 1);
    EXPECT_EQ(prompt_tokens(request), 9);
    request.is_chat = true;
    EXPECT_EQ(prompt_tokens(request), 3);
    request.prompt_ids = {97, 98, 256, 97};
    EXPECT_EQ(prompt_tokens(request), 4);
    request.prompt_ids = {97, 1 << 20};
    const auto refused = engine.submit(request, std::make_shared<Collector>());
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().message().substr(0, 8), "prompt: ");
  });
}

TEST_F(EngineTest, TheSameSeedGivesTheSameTextWhateverElseRuns) {
  auto request = greedy("seeded", 20);
  request.sampling.temperature = 1;
  request.sampling.seed = 42;
  with_engine(2, [&](PipelineEngine& engine) {
    const auto alone = std::make_shared<Collector>(), busy = std::make_shared<Collector>();
    ASSERT_TRUE(engine.submit(request, alone).ok());
    (void)alone->wait();
    std::vector<std::shared_ptr<Collector>> others;
    for (int i = 0; i < 5; ++i) {
      others.push_back(std::make_shared<Collector>());
      ASSERT_TRUE(engine.submit(greedy("other " + std::to_string(i), 30), others.back()).ok());
    }
    ASSERT_TRUE(engine.submit(request, busy).ok());
    (void)busy->wait();
    EXPECT_EQ(busy->ids(), alone->ids());
    for (auto& o : others) (void)o->wait();
  });
}

TEST_F(EngineTest, ACancelledRequestStopsCostingStepsAndFreesItsSlot) {
  PipelineEngineOptions options;
  options.max_sequences = 1;
  with_engine(2, [&](PipelineEngine& engine) {
    const auto first = std::make_shared<Collector>(), second = std::make_shared<Collector>();
    const auto id = engine.submit(greedy("first", 90), first).value();
    first->wait_events(2);
    engine.cancel(id);
    ASSERT_TRUE(engine.submit(greedy("second", 3), second).ok());
    (void)second->wait();
    const int64_t steps = engine.steps();
    EXPECT_LT(steps, 80) << "the first request went on";
    std::this_thread::sleep_for(milliseconds(100));
    EXPECT_EQ(engine.steps(), steps) << "an idle engine takes no steps";
  }, options);
}

TEST_F(EngineTest, EndsAtAStopStringWithoutShowingIt) {
  std::string text;
  with_engine(1, [&](PipelineEngine& engine) {
    const auto whole = std::make_shared<Collector>(), cut = std::make_shared<Collector>();
    ASSERT_TRUE(engine.submit(greedy("stop", 40), whole).ok());
    (void)whole->wait();
    text = whole->text();
    ASSERT_GT(text.size(), 10u);
    auto request = greedy("stop", 40);
    // The text need not be ASCII: cut at whole characters.
    size_t from = 3, to = 6;
    while ((text[from] & 0xC0) == 0x80) ++from;
    to = std::max(to, from + 1);
    while (to < text.size() && (text[to] & 0xC0) == 0x80) ++to;
    request.sampling.stop = {text.substr(from, to - from)};
    ASSERT_TRUE(engine.submit(request, cut).ok());
    EXPECT_EQ(cut->wait().reason, FinishReason::kStop);
    EXPECT_EQ(cut->text(), text.substr(0, text.find(request.sampling.stop[0])));
  });
}

TEST_F(EngineTest, EndsWithLengthWhereTheModelIsFull) {
  with_engine(2, [&](PipelineEngine& engine) {
    const auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine.submit(greedy(std::string(kLength - 5, 'x'), 1000), sink).ok());
    const auto last = sink->wait();
    EXPECT_TRUE(last.reason == FinishReason::kLength || last.reason == FinishReason::kStop);
    EXPECT_LE(last.usage.completion_tokens, 5);
  });
}

TEST_F(EngineTest, RefusesAnOverlongPromptNamingTheField) {
  with_engine(1, [&](PipelineEngine& engine) {
    const auto refused = engine.submit(greedy(std::string(kLength, 'x'), 1), std::make_shared<Collector>());
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
    EXPECT_TRUE(refused.error().message().starts_with("prompt:")) << refused.error().message();
  });
}

TEST_F(EngineTest, FailsAllGenerationsWhenAStageIsGone) {
  comm::spawn_ranks(2, [&](comm::Communicator& ranks) {
    if (ranks.rank() == 1) return;  // never answers
    StageRunner runner({dir_.path(), 0, 2, 8, 0, kernels::Compute::kFp32});
    PipelineEngineOptions options;
    options.timeout = seconds(1);
    PipelineEngine engine(runner, ranks, text::byte_tokenizer(), options);
    const auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine.submit(greedy("hello", 5), sink).ok());
    EXPECT_EQ(sink->wait().reason, FinishReason::kError);
    EXPECT_TRUE(engine.wait_for_failure(Deadline::after(seconds(10))));
    EXPECT_FALSE(engine.submit(greedy("again", 5), sink).ok());
  });
}

}  // namespace
}  // namespace penstock::engine
