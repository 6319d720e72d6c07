#include "text/generation_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace penstock::text {
namespace {

using testing::HasSubstr;

// The refusal of a request that is right but for this change; "" = it is accepted.
std::string refusal(const std::function<void(GenerationRequest&)>& change) {
  GenerationRequest request;
  request.prompt = "x";
  change(request);
  const auto bad = check_generation_request(request);
  if (!bad) return "";
  EXPECT_EQ(bad->code(), Code::kInvalidArgument);
  return bad->message();
}

TEST(GenerationCheck, WhatTheFieldsBeginWithIsRight) {
  EXPECT_EQ(refusal([](auto&) {}), "");
}

TEST(GenerationCheck, TheEdgesOfEachRangeAreInItAndWhatLiesBeyondIsNot) {
  struct Case {
    const char* field;
    double SamplingParams::*value;
    std::vector<double> good, bad;
  };
  const double nan = std::nan("");
  const Case cases[] = {{"temperature", &SamplingParams::temperature, {0, 2}, {-0.01, 2.01, nan}},
                        {"top_p", &SamplingParams::top_p, {1e-9, 1}, {0, 1.01, nan}},
                        {"min_p", &SamplingParams::min_p, {0, 1}, {-0.01, 1.01, nan}},
                        {"repetition_penalty", &SamplingParams::repetition_penalty, {0.01, 10}, {0, 10.1, nan}},
                        {"presence_penalty", &SamplingParams::presence_penalty, {-2, 2}, {-2.1, 2.1, nan}},
                        {"frequency_penalty", &SamplingParams::frequency_penalty, {-2, 2}, {-2.1, 2.1, nan}}};
  for (const Case& c : cases) {
    for (const double value : c.good) EXPECT_EQ(refusal([&](auto& r) { r.sampling.*c.value = value; }), "") << c.field << ' ' << value;
    for (const double value : c.bad) {
      EXPECT_THAT(refusal([&](auto& r) { r.sampling.*c.value = value; }), HasSubstr(fmt::format("field '{}': expected ", c.field))) << value;
    }
  }
}

TEST(GenerationCheck, NumbersOfTokens) {
  EXPECT_EQ(refusal([](auto& r) { r.sampling.max_tokens = r.sampling.min_tokens = 1; }), "");
  EXPECT_EQ(refusal([](auto& r) { r.sampling.max_tokens = 0; }), "field 'max_tokens': expected an integer >= 1, found 0");
  EXPECT_EQ(refusal([](auto& r) { r.sampling.min_tokens = 300; }), "field 'min_tokens': expected an integer from 0 to max_tokens, which is 256, found 300");
  EXPECT_THAT(refusal([](auto& r) { r.sampling.top_k = -1; }), HasSubstr("'top_k'"));
  EXPECT_EQ(refusal([](auto& r) { r.sampling.logprobs = 20; }), "");
  EXPECT_THAT(refusal([](auto& r) { r.sampling.logprobs = 21; }), HasSubstr("'logprobs'"));
}

TEST(GenerationCheck, APromptIsATextOrIds) {
  EXPECT_EQ(refusal([](auto& r) { r.prompt = std::string(kMaxPromptBytes, 'x'); }), "");
  EXPECT_EQ(refusal([](auto& r) { r.prompt.clear(); }), "field 'text': expected 1 byte to 1 MiB, found 0 bytes");
  EXPECT_THAT(refusal([](auto& r) { r.prompt = std::string(kMaxPromptBytes + 1, 'x'); }), HasSubstr("1 MiB"));
  EXPECT_THAT(refusal([](auto& r) { r.prompt = "ab\xff"; }), HasSubstr("0xff at offset 2"));
  EXPECT_EQ(refusal([](auto& r) { r.prompt_ids = {0, 5}; }), "");
  EXPECT_THAT(refusal([](auto& r) { r.prompt_ids = {0, -5}; }), HasSubstr("field 'token_ids'"));
  EXPECT_THAT(refusal([](auto& r) { r.prompt_ids.resize(kMaxPromptIds + 1); }), HasSubstr("field 'token_ids'"));
}

TEST(GenerationCheck, ListsAndWhatIsInThem) {
  EXPECT_EQ(refusal([](auto& r) { r.sampling.stop.assign(kMaxStops, std::string(kMaxStopBytes, 'x')); }), "");
  EXPECT_THAT(refusal([](auto& r) { r.sampling.stop.assign(kMaxStops + 1, "x"); }), HasSubstr("at most 16"));
  EXPECT_THAT(refusal([](auto& r) { r.sampling.stop = {""}; }), HasSubstr("field 'stop'"));
  EXPECT_THAT(refusal([](auto& r) { r.sampling.stop = {"\xff"}; }), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal([](auto& r) { r.sampling.stop_token_ids.resize(65); }), HasSubstr("field 'stop_token_ids'"));
  EXPECT_THAT(refusal([](auto& r) { r.sampling.stop_token_ids = {-1}; }), HasSubstr("field 'stop_token_ids'"));
  EXPECT_EQ(refusal([](auto& r) { r.sampling.logit_bias = {{1, -100.0f}, {2, 100.0f}}; }), "");
  EXPECT_THAT(refusal([](auto& r) { r.sampling.logit_bias = {{1, std::nanf("")}}; }), HasSubstr("field 'logit_bias'"));
  EXPECT_THAT(refusal([](auto& r) { r.sampling.logit_bias = {{-1, 1.0f}}; }), HasSubstr("field 'logit_bias'"));
  EXPECT_THAT(refusal([](auto& r) { r.cache_salt.resize(kMaxSaltBytes + 1); }), HasSubstr("field 'cache_salt'"));
}

}  // namespace
}  // namespace penstock::text
