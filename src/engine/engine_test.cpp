// Whole engines of one and several stages against a plain forward loop without a cache.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <future>

#include "engine/engine_case_test.h"

namespace penstock::engine {
namespace {

TEST_P(EngineOnDevice, OneTwoAndThreeStagesGiveTheTokensOfAPlainLoopForTwentyPrompts) {
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

TEST_P(EngineOnDevice, TheSameSeedGivesTheSameTextWhateverElseRuns) {
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

TEST_P(EngineOnDevice, ACancelledRequestStopsCostingStepsAndFreesItsSlot) {
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

TEST_P(EngineOnDevice, EndsAtAStopStringWithoutShowingIt) {
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

TEST_P(EngineOnDevice, EndsWithLengthWhereTheModelIsFull) {
  with_engine(2, [&](PipelineEngine& engine) {
    const auto sink = std::make_shared<Collector>();
    auto request = greedy(std::string(kLength - 5, 'x'), 1000);
    request.sampling.ignore_eos = true;
    ASSERT_TRUE(engine.submit(request, sink).ok());
    const auto last = sink->wait();
    EXPECT_EQ(last.reason, FinishReason::kLength);
    EXPECT_EQ(last.usage.completion_tokens, 5);
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

// A last stage that computes and does not answer until it is told to: of a long prompt no more than three steps come, and none once its client has gone.
TEST_F(EngineTest, AFirstStageIsNotFarAheadOfTheOthersWithAPrompt) {
  std::promise<void> has_three, may_answer;
  std::atomic<int> computed{0};
  comm::spawn_ranks(2, [&](comm::Communicator& ranks) {
    PipelineEngineOptions options;
    options.max_step_rows = 4;
    StageRunner runner({dir_.path(), ranks.rank(), 2, options.max_sequences, 0, kernels::Compute::kFp32});
    if (ranks.rank() == 0) {
      PipelineEngine engine(runner, ranks, text::byte_tokenizer(), options);
      const auto id = engine.submit(greedy(std::string(80, 'x'), 5), std::make_shared<Collector>()).value();
      EXPECT_EQ(has_three.get_future().wait_for(seconds(20)), std::future_status::ready);
      std::this_thread::sleep_for(milliseconds(50));
      EXPECT_EQ(engine.steps(), 3) << "two stages, and one to spare";
      engine.cancel(id);
      may_answer.set_value();
      return;
    }
    (void)make_caches(runner, &ranks, seconds(10));
    StageLink link(ranks, options.max_sequences, seconds(10));
    std::deque<StepPlan> unanswered;
    for (StepPlan plan = link.recv_plan(Deadline::after(seconds(10))); plan.kind != StepKind::kStop; plan = link.recv_plan(Deadline::after(seconds(10)))) {
      if (plan.kind != StepKind::kCompute) continue;
      (void)link.recv_hidden(plan.rows(), config_.hidden_size);
      unanswered.push_back(std::move(plan));
      if (++computed < 3) continue;
      if (computed == 3) {
        has_three.set_value();
        (void)may_answer.get_future().wait_for(seconds(20));
      }
      for (; !unanswered.empty(); unanswered.pop_front()) link.send_samples(unanswered.front(), {});
    }
    link.flush();
  });
  EXPECT_EQ(computed, 3) << "the request is gone";
}

TEST_F(EngineTest, FailsAllGenerationsWhenAStageIsGone) {
  comm::spawn_ranks(2, [&](comm::Communicator& ranks) {
    StageRunner runner({dir_.path(), ranks.rank(), 2, 8, 0, kernels::Compute::kFp32});
    if (ranks.rank() == 1) {
      (void)make_caches(runner, &ranks, seconds(10));
      return;  // never answers a step
    }
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

// Ranks that share layers, alone and in two stages, give the plain loop's tokens; so does a crowd.
TEST_P(EngineOnDevice, TensorRanksGiveThePlainLoopsTokens) {
  const std::vector<std::string> prompts = {"hello", "a rather longer prompt than the others", "x"};
  std::vector<std::vector<int32_t>> expected;
  for (const auto& prompt : prompts) expected.push_back(plain_greedy(prompt, 20));
  for (const auto& [stages, tensor] : {std::pair(1, 2), std::pair(1, 4), std::pair(2, 2)}) {
    with_tensor_ranks(stages, tensor, [&](PipelineEngine& engine) {
      std::vector<std::shared_ptr<Collector>> sinks;
      for (const auto& prompt : prompts) ASSERT_TRUE(engine.submit(greedy(prompt, 20), sinks.emplace_back(std::make_shared<Collector>())).ok());
      for (size_t i = 0; i < prompts.size(); ++i) {
        EXPECT_NE(sinks[i]->wait().reason, FinishReason::kError);
        EXPECT_EQ(sinks[i]->ids(), expected[i]) << stages << " stages of " << tensor << ": " << prompts[i];
      }
    });
  }
}

TEST_F(EngineTest, FailsAllGenerationsWhenATensorRankIsGone) {
  comm::spawn_ranks(2, [&](comm::Communicator& world) {
    RankGroups groups = make_rank_groups(world, 2, Deadline::after(seconds(20)));
    const model::TensorRanks tensor(*groups.tensor, seconds(1));
    StageOptions stage{dir_.path(), 0, 1, 8, 0, kernels::Compute::kFp32};
    stage.tensor = &tensor;
    StageRunner runner(stage);
    if (!groups.leads()) {
      (void)make_caches(runner, nullptr, seconds(10));
      return;  // never takes part in a step
    }
    PipelineEngine engine(runner, *groups.stages, text::byte_tokenizer(), {});
    const auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine.submit(greedy("hello", 5), sink).ok());
    EXPECT_EQ(sink->wait().reason, FinishReason::kError);
    const auto failure = engine.wait_for_failure(Deadline::after(seconds(10)));
    ASSERT_TRUE(failure);
    EXPECT_NE(failure->message().find("tensor[0]"), std::string::npos) << failure->message();
  });
}

INSTANTIATE_TEST_SUITE_P(On, EngineOnDevice, testing::Values("cpu", "cuda"), name_of_device);

TEST_F(EngineTest, RefusesAsManyTensorRanksAsDoNotDivideTheModel) {
  try {
    with_tensor_ranks(1, 3, [](PipelineEngine&) {});
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kInvalidArgument);
    EXPECT_NE(e.message().find("4 attention heads (num_attention_heads) are not a multiple of it; possible numbers of tensor ranks: 1, 2, 4"), std::string::npos) << e.message();
  }
}

}  // namespace
}  // namespace penstock::engine
