#include "text/generation_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/utf8.h"

namespace penstock::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string refusal(const std::string& data) {
  const Result<GenerationRequest> request = parse_generation_request(data);
  if (request.ok()) return "accepted";
  EXPECT_EQ(request.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(find_invalid_utf8(request.error().message()), std::string::npos) << "a message travels as UTF-8";
  EXPECT_LT(request.error().message().size(), 500u);
  return request.error().message();
}

TEST(GenerationRequest, TakesTextAsThePrompt) {
  const GenerationRequest request = parse_generation_request(" Once upon {\"a\"} \n").value();
  EXPECT_EQ(request.prompt, " Once upon {\"a\"} \n");
  EXPECT_EQ(request.sampling.max_tokens, 256);
  EXPECT_EQ(request.sampling.seed, std::nullopt);
}

TEST(GenerationRequest, ReadsEveryKeyOfAnObject) {
  const GenerationRequest request = parse_generation_request(
                                        "\n {\"prompt\": \"h\\u00e9\", \"max_tokens\": 7, \"temperature\": 0, \"top_k\": 5, \"top_p\": 0.5,"
                                        " \"seed\": 18446744073709551615, \"stop\": [\"a\", \"bc\"]}")
                                        .value();
  EXPECT_EQ(request.prompt, "h\xC3\xA9");
  EXPECT_EQ(request.sampling.max_tokens, 7);
  EXPECT_EQ(request.sampling.temperature, 0);
  EXPECT_EQ(request.sampling.top_k, 5);
  EXPECT_EQ(request.sampling.top_p, 0.5);
  EXPECT_EQ(request.sampling.seed, 18446744073709551615u);
  EXPECT_THAT(request.sampling.stop, ElementsAre("a", "bc"));
  EXPECT_THAT(parse_generation_request(R"({"prompt": "p", "stop": "x"})").value().sampling.stop, ElementsAre("x"));
}

TEST(GenerationRequest, NamesTheFieldThatIsOutOfRangeOrOfTheWrongType) {
  const auto with = [](const std::string& member) { return refusal("{\"prompt\": \"p\", " + member + "}"); };
  EXPECT_EQ(with("\"max_tokens\": 0"), "field 'max_tokens': expected an integer >= 1, found 0");
  EXPECT_EQ(with("\"max_tokens\": 1.5"), "field 'max_tokens': expected an integer >= 1, found 1.5");
  EXPECT_EQ(with("\"max_tokens\": 99999999999999999999"), "field 'max_tokens': expected an integer >= 1, found 1e+20");
  EXPECT_EQ(with("\"max_tokens\": 2147483648"), "field 'max_tokens': expected an integer >= 1, found 2147483648");
  EXPECT_EQ(with("\"max_tokens\": \"7\""), "field 'max_tokens': expected an integer >= 1, found \"7\"");
  EXPECT_EQ(with("\"temperature\": -0.1"), "field 'temperature': expected a number from 0 to 2, found -0.1");
  EXPECT_EQ(with("\"temperature\": 2.1"), "field 'temperature': expected a number from 0 to 2, found 2.1");
  EXPECT_EQ(with("\"temperature\": null"), "field 'temperature': expected a number from 0 to 2, found null");
  EXPECT_EQ(with("\"top_k\": -1"), "field 'top_k': expected an integer >= 0, found -1");
  EXPECT_EQ(with("\"top_p\": 0"), "field 'top_p': expected a number > 0 and <= 1, found 0");
  EXPECT_EQ(with("\"top_p\": [1]"), "field 'top_p': expected a number > 0 and <= 1, found a list");
  EXPECT_EQ(with("\"seed\": -1"), "field 'seed': expected an integer from 0 to 2^64 - 1, found -1");
  EXPECT_THAT(with("\"stop\": [\"\"]"), HasSubstr("field 'stop': expected a text or a list of at most 16 texts"));
  EXPECT_THAT(with("\"stop\": \"" + std::string(257, 'x') + "\""), HasSubstr("field 'stop'"));
  EXPECT_THAT(with("\"stop\": [\"" + std::string(200, 'x') + "\", 3]"), HasSubstr("field 'stop'"));
  std::string seventeen = "\"a\"";
  for (int i = 0; i < 16; ++i) seventeen += ", \"a\"";
  EXPECT_THAT(with("\"stop\": [" + seventeen + "]"), HasSubstr("field 'stop'"));
}

TEST(GenerationRequest, ReadsWhatSteersTheChoiceOfTokens) {
  const SamplingParams sampling = parse_generation_request(R"({"prompt": "p", "min_tokens": 2, "min_p": 0.5, "repetition_penalty": 1.25, "presence_penalty": 1,
      "frequency_penalty": -1, "logit_bias": {"3": 0.5}, "stop_token_ids": [9], "ignore_eos": true})").value().sampling;
  EXPECT_EQ(sampling.min_tokens, 2);
  EXPECT_EQ(sampling.min_p, 0.5);
  EXPECT_EQ(sampling.repetition_penalty, 1.25);
  EXPECT_EQ(sampling.presence_penalty, 1);
  EXPECT_EQ(sampling.frequency_penalty, -1);
  EXPECT_THAT(sampling.logit_bias, ElementsAre(std::pair(3, 0.5f)));
  EXPECT_THAT(sampling.stop_token_ids, ElementsAre(9));
  EXPECT_TRUE(sampling.ignore_eos);
  const auto with = [](const std::string& member) { return refusal("{\"prompt\": \"p\", " + member + "}"); };
  EXPECT_EQ(with("\"repetition_penalty\": 0"), "field 'repetition_penalty': expected a number > 0 and <= 10, found 0");
  EXPECT_EQ(with("\"presence_penalty\": 3"), "field 'presence_penalty': expected a number from -2 to 2, found 3");
  EXPECT_EQ(with("\"min_tokens\": 300"), "field 'min_tokens': expected at most max_tokens, 256, found 300");
  EXPECT_THAT(with("\"logit_bias\": {\"a\": 1}"), HasSubstr("field 'logit_bias': expected an object"));
}

TEST(GenerationRequest, MaxNewTokensIsAnotherNameOfMaxTokens) {
  EXPECT_EQ(parse_generation_request(R"({"prompt": "p", "max_new_tokens": 7})").value().sampling.max_tokens, 7);
  EXPECT_EQ(parse_generation_request(R"({"prompt": "p", "max_tokens": 8, "max_new_tokens": 7})").value().sampling.max_tokens, 8);
}

TEST(GenerationRequest, NamesTheNearestKeyForAnUnknownOne) {
  EXPECT_EQ(refusal(R"({"prompt": "p", "max_token": 3})"), "unknown key 'max_token'; did you mean 'max_tokens'?");
}

TEST(GenerationRequest, RefusesAnEmptyAbsentOrOverlongPrompt) {
  EXPECT_THAT(refusal(""), HasSubstr("expected a prompt, found nothing"));
  EXPECT_EQ(refusal("{}"), "field 'prompt': expected text, found nothing");
  EXPECT_EQ(refusal(R"({"prompt": ""})"), "field 'prompt': expected text of 1 byte to 1 MiB, found 0 bytes");
  EXPECT_THAT(refusal(std::string((1 << 20) + 1, 'x')), HasSubstr("at most 1048576 bytes, found 1048577"));
  EXPECT_EQ(refusal("{\"prompt\": \"" + std::string((1 << 20) + 1, 'x') + "\"}"),
            "field 'prompt': expected text of 1 byte to 1 MiB, found 1048577 bytes");
  EXPECT_THAT(refusal(std::string((4 << 20) + 1, ' ')), HasSubstr("at most 4194304 bytes"));
  EXPECT_EQ(parse_generation_request(std::string(1 << 20, 'x')).value().prompt.size(), size_t{1} << 20);
}

TEST(GenerationRequest, ConstraintsAreThoseOfOpenAisApi) {
  const auto request = parse_generation_request(R"({"prompt": "p", "guided_json": {"type": "object", "properties": {"b": true, "a": true}}})");
  ASSERT_TRUE(request.ok()) << request.error().message();
  const TextConstraint expected{TextConstraint::Kind::kJsonSchema, R"({"type":"object","properties":{"b":true,"a":true}})"};
  EXPECT_TRUE(request.value().sampling.constraint == expected) << request.value().sampling.constraint.source;
  EXPECT_EQ(refusal(R"({"prompt": "p", "guided_regex": "\\bx"})"), "field guided_regex: a word boundary (\\b) at byte 0 is not supported");
  EXPECT_THAT(refusal(R"({"prompt": "p", "guided_rexeg": "x"})"), HasSubstr("guided_regex"));
}

TEST(GenerationRequest, RefusesWhatIsNotUtf8) {
  EXPECT_EQ(refusal("ab\xFF"), "field 'data': expected UTF-8, found an invalid byte 0xff at offset 2");
  EXPECT_EQ(refusal("{\"prompt\": \"\xC3\"}"), "field 'data': expected UTF-8, found an invalid byte 0xc3 at offset 12");
  EXPECT_THAT(refusal("{\"prompt\": \"\\ud800\"}"), HasSubstr("expected JSON"));
}

TEST(GenerationRequest, RefusesBrokenOrDeepJsonAndKeysGivenTwice) {
  EXPECT_THAT(refusal("{\"prompt\": \"p\""), HasSubstr("field 'data': expected JSON: parse error at line 1"));
  EXPECT_THAT(refusal("{\"prompt\": \"" + std::string(1 << 20, 'x')), HasSubstr("field 'data': expected JSON"));
  EXPECT_THAT(refusal("{\"prompt\": \"p\"} x"), HasSubstr("expected JSON"));
  std::string deep = "{\"prompt\": ";
  for (int i = 0; i < 1'000'000; ++i) deep += '[';
  EXPECT_EQ(refusal(deep), "field 'data': nested deeper than 64");
  EXPECT_EQ(refusal(R"({"prompt": "a", "prompt": "b"})"), "field 'data': key \"prompt\" is given twice");
}

}  // namespace
}  // namespace penstock::text
