// The same text whatever else runs, and what requests may ask about their tokens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "engine/engine_case_test.h"

namespace penstock::engine {
namespace {

using testing::HasSubstr;

constexpr int64_t kPageBytes = 2 * 4 * 4 * 2 * 16 * 8;  // of all four layers

class EngineTextsTest : public EngineOnDevice {
 protected:
  struct Answer {
    std::vector<int32_t> ids;
    std::string text;
    FinishReason reason = FinishReason::kStop;
    bool operator==(const Answer&) const = default;
  };
  static Answer wait(Collector& sink) {
    const auto last = sink.wait();
    EXPECT_NE(last.reason, FinishReason::kError) << last.error.message();
    return {sink.ids(), sink.text(), last.reason};
  }
  static Answer alone(PipelineEngine& engine, const text::GenerationRequest& request) {
    const auto sink = std::make_shared<Collector>();
    EXPECT_TRUE(engine.submit(request, sink).ok());
    return wait(*sink);
  }

  // Requests of all kinds. Some begin alike.
  static std::vector<text::GenerationRequest> random_requests(int count) {
    std::mt19937 random(7);
    const auto any = [&](int from, int to) { return std::uniform_int_distribution(from, to)(random); };
    std::vector<text::GenerationRequest> requests;
    for (int i = 0; i < count; ++i) {
      text::GenerationRequest& request = requests.emplace_back();
      if (any(0, 2) == 0) request.prompt = "A beginning that many of the requests have in common. ";
      for (int length = any(1, 30); length > 0; --length) request.prompt += static_cast<char>('a' + any(0, 25));
      text::SamplingParams& sampling = request.sampling;
      sampling.max_tokens = any(1, 20);
      sampling.temperature = any(0, 3) * 0.4;
      sampling.seed = static_cast<uint64_t>(any(0, 1 << 30));
      if (any(0, 3) == 0) sampling.top_k = any(1, 40);
      if (any(0, 3) == 0) sampling.top_p = 0.9;
      if (any(0, 3) == 0) sampling.min_p = 0.02;
      if (any(0, 3) == 0) sampling.repetition_penalty = 1.3;
      if (any(0, 3) == 0) sampling.frequency_penalty = 0.5;
      if (any(0, 3) == 0) sampling.presence_penalty = 0.5;
      if (any(0, 3) == 0) sampling.min_tokens = any(0, sampling.max_tokens);
      if (any(0, 3) == 0) sampling.logprobs = any(0, 3);
      request.cache_salt = any(0, 3) == 0 ? "another client" : "";
    }
    return requests;
  }

  // Each request gives in the crowd what it gives alone. Every fifth one is cancelled on its way.
  void expect_the_same_in_a_crowd(int stages, int count, int64_t kv_cache_bytes, const std::function<void(const EngineStats&)>& check) {
    const auto requests = random_requests(count);
    PipelineEngineOptions options;
    options.max_sequences = 8;
    with_engine(stages, [&](PipelineEngine& engine) {
      std::vector<Answer> expected;
      for (const auto& request : requests) expected.push_back(alone(engine, request));
      std::vector<std::shared_ptr<Collector>> sinks;
      std::vector<RequestId> ids;
      for (const auto& request : requests) {
        sinks.push_back(std::make_shared<Collector>());
        ids.push_back(engine.submit(request, sinks.back()).value());
        if (ids.size() % 5 == 0) sinks[ids.size() - 3]->wait_events(1);  // so that cancels meet requests of every age
        if (ids.size() % 5 == 0) engine.cancel(ids[ids.size() - 3]);
      }
      for (size_t i = 0; i < requests.size(); ++i) {
        if (i % 5 == 2) continue;
        const Answer answer = wait(*sinks[i]);
        EXPECT_EQ(answer.ids, expected[i].ids) << stages << " stages, request " << i;
        EXPECT_TRUE(answer == expected[i]) << "request " << i;
      }
      check(engine.stats().value());
    }, options, kv_cache_bytes);
  }
};

TEST_P(EngineTextsTest, TwoHundredRequestsGiveEachWhatItGivesAloneOverOneAndTwoStages) {
  for (const int stages : {1, 2}) {
    expect_the_same_in_a_crowd(stages, 200, 0, [&](const EngineStats& stats) {
      EXPECT_GT(stats.prefix_hits, 0);
      EXPECT_EQ(stats.waiting, 0);
    });
  }
}

TEST_P(EngineTextsTest, TheyAreTheSameWhereMemoryForcesRequestsBack) {
  for (const int stages : {1, 2}) {
    expect_the_same_in_a_crowd(stages, 60, 10 * kPageBytes / stages, [&](const EngineStats& stats) {
      EXPECT_GT(stats.preemptions, 0) << stats.pages << " pages";
    });
  }
}

TEST_P(EngineTextsTest, ASharedBeginningGivesTheTextThatItGivesWhenItIsComputed) {
  const std::string beginning(60, 'b');
  auto request = greedy(beginning + "what is this?", 20);
  with_engine(2, [&](PipelineEngine& engine) {
    const Answer computed = alone(engine, request);
    EXPECT_EQ(engine.stats()->prefix_hits, 0);
    const Answer shared = alone(engine, request);
    EXPECT_EQ(engine.stats()->prefix_hits, 64) << "73 tokens: four full pages";
    EXPECT_EQ(shared.ids, computed.ids);
    request.cache_salt = "another client";
    EXPECT_EQ(alone(engine, request).ids, computed.ids);
    EXPECT_EQ(engine.stats()->prefix_hits, 64) << "another client finds nothing";
    EXPECT_EQ(engine.stats()->prefix_queries, 3 * 73);
    EXPECT_EQ(engine.stats()->pages_held, 0) << "what is kept is not held";
  });
}

TEST_P(EngineTextsTest, ACacheThatHoldsNotOneSequenceIsRefusedAtLoad) {
  try {
    with_engine(1, [](PipelineEngine&) {}, {}, 5 * kPageBytes);
    FAIL() << "96 tokens need six pages";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kResourceExhausted);
    EXPECT_THAT(e.message(), HasSubstr("one of 96 tokens needs 1 MiB"));
  }
}

TEST_P(EngineTextsTest, LogProbabilitiesAreTheModels) {
  auto request = greedy("probable", 6);
  request.sampling.logprobs = 3;
  for (const int stages : {1, 2}) {
    with_engine(stages, [&](PipelineEngine& engine) {
      const auto sink = std::make_shared<Collector>();
      ASSERT_TRUE(engine.submit(request, sink).ok());
      const Answer answer = wait(*sink);
      const auto logprobs = sink->logprobs();
      ASSERT_EQ(logprobs.size(), answer.ids.size());
      at::NoGradGuard no_grad;
      std::vector<int64_t> ids;
      for (const auto id : text::byte_tokenizer().encode(request.prompt)) ids.push_back(id);
      for (size_t i = 0; i < answer.ids.size(); ++i) {
        const at::Tensor logits = whole_->forward({at::tensor(ids, at::kLong).unsqueeze(0)}, {}).at(0)[0][static_cast<int64_t>(ids.size()) - 1];
        const at::Tensor expected = at::log_softmax(logits.to(at::kDouble), -1);
        ASSERT_EQ(logprobs[i].size(), 4u);
        EXPECT_EQ(logprobs[i][0].id, answer.ids[i]);
        EXPECT_EQ(logprobs[i][1].id, answer.ids[i]) << "greedy: it is the most likely one";
        for (const auto& token : logprobs[i]) EXPECT_NEAR(token.logprob, expected[token.id].item<double>(), 1e-4);
        EXPECT_EQ(logprobs[i][2].bytes, text::byte_tokenizer().bytes_of(logprobs[i][2].id));
        ids.push_back(answer.ids[i]);
      }
    });
  }
}

// In pieces of a prompt, beside others, after its beginning is there already, and after it was put back.
TEST_P(EngineTextsTest, LogProbabilitiesOfPromptsAreTheModels) {
  const auto expect_the_models = [&](const std::string& prompt, const std::vector<std::vector<text::TokenLogprob>>& told) {
    at::NoGradGuard no_grad;
    const auto tokens = text::byte_tokenizer().encode(prompt);
    std::vector<int64_t> ids(tokens.begin(), tokens.end());
    const at::Tensor expected = at::log_softmax(whole_->forward({at::tensor(ids, at::kLong).unsqueeze(0)}, {}).at(0)[0].to(at::kDouble), -1);
    ASSERT_EQ(told.size(), ids.size());
    EXPECT_EQ(told[0].front().id, ids[0]);
    EXPECT_TRUE(std::isnan(told[0].front().logprob));
    for (size_t i = 1; i < ids.size(); ++i) {
      ASSERT_EQ(told[i].size(), 3u);
      EXPECT_EQ(told[i][0].id, ids[i]);
      EXPECT_GE(told[i][1].logprob, told[i][2].logprob);
      for (const auto& token : told[i]) EXPECT_NEAR(token.logprob, expected[static_cast<int64_t>(i) - 1][token.id].item<double>(), 1e-4) << i;
    }
  };
  const std::string beginning(60, 'b');
  for (const int stages : {1, 2}) {
    PipelineEngineOptions options;
    options.max_step_rows = 24;
    with_engine(stages, [&](PipelineEngine& engine) {
      auto request = greedy(beginning + "what is this?", 4);
      const Answer plain = alone(engine, request);
      std::vector<std::pair<std::string, std::shared_ptr<Collector>>> asked;
      for (int i = 0; i < 12; ++i) {
        request = greedy(i == 0 ? "x" : beginning.substr(0, static_cast<size_t>(5 * i)) + "what is this?", 22);
        request.sampling.ignore_eos = true;
        if (i % 3 != 1) request.sampling.prompt_logprobs = 2;
        const auto sink = std::make_shared<Collector>();
        ASSERT_TRUE(engine.submit(request, sink).ok());
        if (i % 3 != 1) asked.emplace_back(request.prompt, sink);
      }
      for (const auto& [prompt, sink] : asked) {
        (void)wait(*sink);
        expect_the_models(prompt, sink->prompt_logprobs());
      }
      EXPECT_GT(engine.stats()->preemptions, 0);
      request = greedy(beginning + "what is this?", 4);
      request.sampling.prompt_logprobs = 2;
      EXPECT_EQ(alone(engine, request).ids, plain.ids);
      const auto sink = std::make_shared<Collector>();
      ASSERT_TRUE(engine.submit(greedy(beginning + "what is this?", 4), sink).ok());
      EXPECT_EQ(sink->wait().usage.cached_tokens, 64) << "73 tokens: four full pages";
      EXPECT_TRUE(sink->prompt_logprobs().empty());
    }, options, 10 * kPageBytes / stages);
  }
}

TEST_P(EngineTextsTest, BiasForbidsStopTokensEndAndMinTokensPostponesThem) {
  with_engine(1, [&](PipelineEngine& engine) {
    auto request = greedy("steered", 12);
    request.sampling.ignore_eos = true;
    const Answer plain = alone(engine, request);
    ASSERT_EQ(plain.ids.size(), 12u);
    const int32_t third = plain.ids[2];

    auto stopped = request;
    stopped.sampling.stop_token_ids = {third};
    const Answer ended = alone(engine, stopped);
    EXPECT_EQ(ended.reason, FinishReason::kStop);
    EXPECT_EQ(ended.ids.back(), third);
    EXPECT_LE(ended.ids.size(), 3u);

    stopped.sampling.min_tokens = 8;
    const Answer later = alone(engine, stopped);
    EXPECT_GE(later.ids.size(), 8u);
    EXPECT_EQ(std::count(later.ids.begin(), later.ids.begin() + 8, third), 0);

    auto biased = request;
    biased.sampling.logit_bias = {{third, -100.0f}};
    const Answer without = alone(engine, biased);
    EXPECT_EQ(std::count(without.ids.begin(), without.ids.end(), third), 0);

    biased.sampling.logit_bias = {{100000, 1.0f}};
    const auto refused = engine.submit(biased, std::make_shared<Collector>());
    ASSERT_FALSE(refused.ok());
    EXPECT_THAT(refused.error().message(), HasSubstr("logit_bias: expected token ids from 0 to 256, found 100000"));
  });
}

// What each event said.
class Pieces final : public EventSink {
 public:
  bool push(GenerationEvent event) override {
    MutexLock lock(mutex_);
    events_.push_back(std::move(event));
    changed_.notify_all();
    return true;
  }
  std::vector<GenerationEvent> wait() {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(60));
    while (events_.empty() || !events_.back().finished) {
      if (!changed_.wait(mutex_, deadline)) throw std::runtime_error("no end within a minute");
    }
    return events_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<GenerationEvent> events_;
};

TEST_P(EngineTextsTest, AGenerationThatGoesOnAfterTokensThatAreKnownSaysTheRestOfWhatItWouldHaveSaid) {
  auto request = greedy("resume me", 24);
  request.sampling.temperature = 1;
  request.sampling.seed = 7;
  request.sampling.repetition_penalty = 1.3;
  request.sampling.presence_penalty = 0.4;
  request.sampling.frequency_penalty = 0.2;
  request.sampling.min_tokens = 20;
  request.sampling.logprobs = 2;
  for (const int stages : {1, 2}) {
    with_engine(stages, [&](PipelineEngine& engine) {
      const auto run = [&](const text::GenerationRequest& asked) {
        const auto sink = std::make_shared<Pieces>();
        EXPECT_TRUE(engine.submit(asked, sink).ok());
        return sink->wait();
      };
      const std::vector<GenerationEvent> whole = run(request);
      ASSERT_GE(whole.size(), 20u);
      for (const size_t known : {size_t{1}, size_t{7}, size_t{15}, whole.size() - 1}) {
        auto rest_of = request;
        for (size_t i = 0; i < known; ++i) rest_of.generated_ids.push_back(whole[i].token_id);
        const std::vector<GenerationEvent> rest = run(rest_of);
        ASSERT_EQ(rest.size(), whole.size() - known) << stages << " stages, " << known << " tokens known";
        for (size_t i = 0; i < rest.size(); ++i) {
          EXPECT_EQ(rest[i].token_id, whole[known + i].token_id);
          EXPECT_EQ(rest[i].text, whole[known + i].text);
          ASSERT_EQ(rest[i].logprobs.size(), whole[known + i].logprobs.size());
          for (size_t j = 0; j < rest[i].logprobs.size(); ++j) EXPECT_NEAR(rest[i].logprobs[j].logprob, whole[known + i].logprobs[j].logprob, 1e-4);
        }
        EXPECT_EQ(rest.back().usage.completion_tokens, static_cast<int>(whole.size()));
        EXPECT_EQ(rest.back().usage.prompt_tokens, whole.back().usage.prompt_tokens);
      }
    });
  }
}

TEST_F(EngineTest, TokensThatLeaveNothingToSayAreRefused) {
  with_engine(1, [&](PipelineEngine& engine) {
    auto request = greedy("resume me", 4);
    const auto refusal = [&](std::vector<int32_t> known) {
      request.generated_ids = std::move(known);
      const auto submitted = engine.submit(request, std::make_shared<Collector>());
      return submitted.ok() ? std::string() : submitted.error().message();
    };
    EXPECT_NE(refusal({1, 2, 3, 4}).find("generated_ids: 4 tokens"), std::string::npos);
    EXPECT_NE(refusal({1, 256}).find("has ended"), std::string::npos) << "256 ends a text";
    EXPECT_NE(refusal({1, 1 << 20}).find("generated_ids"), std::string::npos);
  });
}

TEST_P(EngineTextsTest, AModelWhoseOutputIsNotANumberIsAnErrorOfItsRequestsOnly) {
  std::vector<weights::NamedTensor> tensors;
  for (auto& p : whole_->parameters()) {
    if (p.name == "model.norm.weight") p.value.detach().fill_(std::nan(""));
    for (auto& part : model::stored_parts(p, p.value)) tensors.push_back(part);
  }
  weights::write_hf_weights(dir_.path(), tensors, 1 << 30);
  for (const int stages : {1, 2}) {
    with_engine(stages, [&](PipelineEngine& engine) {
      for (int request = 0; request < 2; ++request) {
        text::GenerationRequest asked;
        asked.prompt = "x";
        asked.sampling.logprobs = 2;
        const auto sink = std::make_shared<Collector>();
        ASSERT_TRUE(engine.submit(asked, sink).ok());
        const GenerationEvent last = sink->wait();
        EXPECT_EQ(last.reason, FinishReason::kError) << stages;
        EXPECT_EQ(last.error.code(), Code::kInternal);
        EXPECT_THAT(last.error.message(), HasSubstr("the model's output is not a number"));
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(On, EngineTextsTest, testing::Values("cpu", "cuda"), name_of_device);

}  // namespace
}  // namespace penstock::engine
