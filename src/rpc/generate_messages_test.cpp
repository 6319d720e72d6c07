#include "rpc/generate_messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "penstock/generate.pb.h"

namespace penstock::rpc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

v1::GenerateRequest prompt_of(const std::string& text) {
  v1::GenerateRequest message;
  message.set_text(text);
  return message;
}

TEST(GenerateMessages, WhatIsAbsentHasItsDefault) {
  const text::GenerationRequest request = from_proto(prompt_of("x")).value();
  const text::SamplingParams defaults;
  EXPECT_EQ(request.prompt, "x");
  EXPECT_FALSE(request.is_chat);
  EXPECT_EQ(request.sampling.max_tokens, defaults.max_tokens);
  EXPECT_EQ(request.sampling.temperature, defaults.temperature);
  EXPECT_EQ(request.sampling.top_p, defaults.top_p);
  EXPECT_EQ(request.sampling.repetition_penalty, defaults.repetition_penalty);
  EXPECT_EQ(request.sampling.seed, std::nullopt);
  EXPECT_EQ(request.sampling.logprobs, std::nullopt);
}

TEST(GenerateMessages, EveryFieldIsTaken) {
  v1::GenerateRequest message;
  for (const int32_t id : {4, 5, 6}) message.mutable_token_ids()->add_ids(id);
  message.set_is_chat(true);
  message.set_cache_salt("salt");
  v1::Sampling& from = *message.mutable_sampling();
  from.set_max_tokens(7);
  from.set_min_tokens(2);
  from.set_temperature(0);
  from.set_top_k(3);
  from.set_top_p(0.5);
  from.set_min_p(0.25);
  from.set_repetition_penalty(1.5);
  from.set_presence_penalty(-1);
  from.set_frequency_penalty(2);
  (*from.mutable_logit_bias())[9] = -3.5f;
  from.set_seed(18446744073709551615u);
  from.add_stop("end");
  from.add_stop_token_ids(11);
  from.set_ignore_eos(true);
  from.set_logprobs(0);
  const text::GenerationRequest request = from_proto(message).value();
  EXPECT_THAT(request.prompt_ids, ElementsAre(4, 5, 6));
  EXPECT_TRUE(request.is_chat);
  EXPECT_EQ(request.cache_salt, "salt");
  const text::SamplingParams& s = request.sampling;
  EXPECT_EQ(s.max_tokens, 7);
  EXPECT_EQ(s.min_tokens, 2);
  EXPECT_EQ(s.temperature, 0);
  EXPECT_EQ(s.top_k, 3);
  EXPECT_EQ(s.top_p, 0.5);
  EXPECT_EQ(s.min_p, 0.25);
  EXPECT_EQ(s.repetition_penalty, 1.5);
  EXPECT_EQ(s.presence_penalty, -1);
  EXPECT_EQ(s.frequency_penalty, 2);
  EXPECT_THAT(s.logit_bias, ElementsAre(std::pair<int32_t, float>(9, -3.5f)));
  EXPECT_EQ(s.seed, 18446744073709551615u);
  EXPECT_THAT(s.stop, ElementsAre("end"));
  EXPECT_THAT(s.stop_token_ids, ElementsAre(11));
  EXPECT_TRUE(s.ignore_eos);
  EXPECT_EQ(s.logprobs, 0);
}

TEST(GenerateMessages, WithoutAPromptOrOutOfRangeItIsRefused) {
  EXPECT_THAT(from_proto(v1::GenerateRequest()).error().message(), HasSubstr("field 'text'"));
  v1::GenerateRequest message = prompt_of("x");
  message.mutable_sampling()->set_top_p(0);
  EXPECT_THAT(from_proto(message).error().message(), HasSubstr("field 'top_p'"));
  message.mutable_token_ids();
  EXPECT_THAT(from_proto(message).error().message(), HasSubstr("field 'token_ids'"));
}

TEST(GenerateMessages, AConstraintIsTakenOrRefusedByItsName) {
  using Kind = text::TextConstraint::Kind;
  v1::GenerateRequest message = prompt_of("x");
  v1::Sampling& sampling = *message.mutable_sampling();
  const auto taken = [&] { return from_proto(message).value().sampling.constraint; };
  EXPECT_EQ(taken().kind, Kind::kNone);
  sampling.set_json_object(false);
  EXPECT_EQ(taken().kind, Kind::kNone);
  sampling.set_json_object(true);
  EXPECT_EQ(taken().kind, Kind::kJsonObject);
  sampling.set_json_schema(R"({"type": "integer"})");
  EXPECT_EQ(taken(), (text::TextConstraint{Kind::kJsonSchema, R"({"type": "integer"})"}));
  sampling.set_regex("a+");
  EXPECT_EQ(taken(), (text::TextConstraint{Kind::kRegex, "a+"}));
  sampling.mutable_choice()->add_texts("yes");
  sampling.mutable_choice()->add_texts("\"no\"");
  EXPECT_EQ(taken(), (text::TextConstraint{Kind::kChoice, R"(["yes","\"no\""])"}));
  sampling.mutable_choice()->clear_texts();
  EXPECT_THAT(from_proto(message).error().message(), HasSubstr("field 'choice'"));
  sampling.set_regex("(");
  EXPECT_THAT(from_proto(message).error().message(), HasSubstr("field 'regex'"));
  sampling.set_json_schema("{");
  EXPECT_THAT(from_proto(message).error().message(), HasSubstr("field 'json_schema'"));
}

TEST(GenerateMessages, APromptsTokensComeWithTheFirstOneHavingNoProbability) {
  v1::GenerateRequest message = prompt_of("x");
  message.mutable_sampling()->set_prompt_logprobs(1);
  EXPECT_EQ(from_proto(message).value().sampling.prompt_logprobs, 1);
  message.mutable_sampling()->set_prompt_logprobs(21);
  EXPECT_THAT(from_proto(message).error().message(), HasSubstr("field 'prompt_logprobs'"));
  frontend::WorkerEvent event;
  event.token_id = 3;
  event.prompt_logprobs = {{{1, std::nan(""), "a"}}, {{2, -0.5, "b"}, {4, -0.25, "c"}}};
  const v1::GenerateResponse first = to_response(event).value();
  ASSERT_EQ(first.prompt_size(), 2);
  EXPECT_EQ(first.prompt(0).id(), 1);
  EXPECT_FALSE(first.prompt(0).has_logprob());
  EXPECT_EQ(first.prompt(0).bytes(), "a");
  EXPECT_EQ(first.prompt(1).logprob(), -0.5);
  ASSERT_EQ(first.prompt(1).top_size(), 1);
  EXPECT_EQ(first.prompt(1).top(0).id(), 4);
}

TEST(GenerateMessages, AnEventIsTextTokenAndFinish) {
  EXPECT_FALSE(to_response({}).has_value());
  frontend::WorkerEvent event;
  event.bytes = "hi";
  event.token_id = 3;
  event.logprobs = {{3, -0.5, "h\xC3"}, {3, -0.5, "h\xC3"}, {8, -1.5, "x"}};
  const v1::GenerateResponse piece = to_response(event).value();
  EXPECT_EQ(piece.text(), "hi");
  ASSERT_EQ(piece.tokens_size(), 1);
  EXPECT_EQ(piece.tokens(0).id(), 3);
  EXPECT_EQ(piece.tokens(0).logprob(), -0.5);
  EXPECT_EQ(piece.tokens(0).bytes(), "h\xC3");
  ASSERT_EQ(piece.tokens(0).top_size(), 2);
  EXPECT_EQ(piece.tokens(0).top(1).id(), 8);
  EXPECT_FALSE(piece.has_finish());

  frontend::WorkerEvent last;
  last.finished = frontend::FinishedInfo{"length", 5, 6, 1.5, 4};
  const v1::GenerateResponse end = to_response(last).value();
  EXPECT_EQ(end.tokens_size(), 0);
  EXPECT_EQ(end.finish().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(end.finish().usage().prompt_tokens(), 5);
  EXPECT_EQ(end.finish().usage().completion_tokens(), 6);
  EXPECT_EQ(end.finish().usage().cached_tokens(), 4);
  EXPECT_EQ(end.finish().median_step_ms(), 1.5);
  last.finished->reason = "stop";
  EXPECT_EQ(to_response(last)->finish().reason(), v1::FINISH_REASON_STOP);
}

}  // namespace
}  // namespace penstock::rpc
