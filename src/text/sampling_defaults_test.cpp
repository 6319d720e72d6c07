#include "text/sampling_defaults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::text {
namespace {

using testing::HasSubstr;

class SamplingDefaultsTest : public testing::Test {
 protected:
  Result<SamplingDefaults> read(const std::string& file) {
    write_file_atomic(folder_.path() / "generation_config.json", file);
    return read_sampling_defaults(folder_.path());
  }
  // Of a request with these members.
  SamplingParams sampling(const SamplingDefaults& defaults, const std::string& members) {
    OpenAiCall call = std::get<OpenAiCall>(parse_completion_request(R"({"model": "m", "prompt": "p")" + members + "}"));
    apply_defaults(defaults, call);
    return call.sampling;
  }
  TempDir folder_;
};

TEST_F(SamplingDefaultsTest, FillWhatARequestDoesNotSay) {
  const SamplingDefaults defaults = read(R"({"temperature": 0.5, "top_p": 0.25, "top_k": 20, "min_p": 0.125, "repetition_penalty": 1.5, "do_sample": true, "eos_token_id": 2})").value();
  const SamplingParams untold = sampling(defaults, "");
  EXPECT_EQ(untold.temperature, 0.5);
  EXPECT_EQ(untold.top_p, 0.25);
  EXPECT_EQ(untold.top_k, 20);
  EXPECT_EQ(untold.min_p, 0.125);
  EXPECT_EQ(untold.repetition_penalty, 1.5);
  const SamplingParams told = sampling(defaults, R"(, "temperature": 1, "top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1)");
  EXPECT_EQ(told.temperature, 1);
  EXPECT_EQ(told.top_p, 1);
  EXPECT_EQ(told.top_k, 0);
  EXPECT_EQ(told.min_p, 0);
  EXPECT_EQ(told.repetition_penalty, 1);
  EXPECT_EQ(sampling(defaults, R"(, "temperature": null)").temperature, 0.5) << "null is as good as absent";
  EXPECT_EQ(sampling(defaults, R"(, "top_p": 0)").top_k, 1) << "the most likely token alone";
}

TEST_F(SamplingDefaultsTest, AreNoneWithoutAFile) {
  const SamplingDefaults none = read_sampling_defaults(folder_.path()).value();
  EXPECT_EQ(sampling(none, "").temperature, 1);
  EXPECT_EQ(sampling(none, "").top_k, 0);
  write_file_atomic(folder_.path() / "x.gguf", "x");
  EXPECT_TRUE(read_sampling_defaults(folder_.path() / "x.gguf"));
  EXPECT_EQ(read(R"({"temperature": null, "top_k": -1})").value().top_k, 0);
}

TEST_F(SamplingDefaultsTest, OutOfRangeAreErrorsThatNameFileAndKey) {
  for (const char* wrong : {R"({"temperature": 2.5})", R"({"temperature": "hot"})", R"({"top_p": 0})", R"({"top_p": 1.5})", R"({"min_p": -1})", R"({"repetition_penalty": 0})",
                            R"({"top_k": 1.5})", R"({"top_k": -2})", R"({"top_k": 99999999999})", R"({"top_k": 18446744073709551615})", R"({"temperature": 1e999})", "[]", "{", "\xff"}) {
    const auto refused = read(wrong);
    ASSERT_FALSE(refused) << wrong;
    EXPECT_EQ(refused.error().code(), Code::kDataLoss) << wrong;
    EXPECT_THAT(refused.error().message(), HasSubstr("generation_config.json")) << wrong;
  }
}

}  // namespace
}  // namespace penstock::text
