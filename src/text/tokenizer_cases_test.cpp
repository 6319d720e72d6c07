// Real tokenizers against the ids and texts that other implementations give.
#include <gtest/gtest.h>

#include "text/shared_cases_test.h"
#include "text/tokenizer.h"

namespace penstock::text {
namespace {

using Json = nlohmann::json;

struct Source {
  const char* name;
  const char* folder;
  const char* cases;
  int expected_cases;
  bool parse_special;  // the cases expect special tokens that are written in the text
  bool decode_skips;   // they tell what decoding without special tokens gives, where it differs
};

void PrintTo(const Source& source, std::ostream* out) { *out << source.name; }

class TokenizerCases : public testing::TestWithParam<Source> {};

TEST_P(TokenizerCases, GiveTheReferenceIdsAndTexts) {
  const auto cases = shared_json(GetParam().cases);
  if (!cases) GTEST_SKIP() << "no test data in " << shared_folder() << " (set PENSTOCK_SHARED)";
  const Tokenizer tokenizer = Tokenizer::load(shared_folder() / GetParam().folder).value();
  int count = 0;
  for (const Json& example : *cases) {
    const auto text = example.at("text").get<std::string>();
    const auto ids = example.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(text, {.parse_special_tokens = GetParam().parse_special}), ids) << example.at("name");
    if (example.contains("ids_with_special")) {
      EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = true, .parse_special_tokens = GetParam().parse_special}),
                example.at("ids_with_special").get<std::vector<int32_t>>())
          << example.at("name");
    }
    const auto decoded = example.at("decoded").get<std::string>();
    EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kAsText), decoded) << example.at("name");
    if (GetParam().decode_skips) {
      EXPECT_EQ(tokenizer.decode(ids), example.value("decoded_skip_special", decoded)) << example.at("name");
    }
    ++count;
  }
  EXPECT_GE(count, GetParam().expected_cases) << "the file holds fewer cases than it should";
}

INSTANTIATE_TEST_SUITE_P(
    Text, TokenizerCases,
    testing::Values(Source{"gpt2", "data/tokenizers/gpt2", "data/tokenizers/gpt2/cases.json", 100, true, true},
                    Source{"qwen2_5", "data/tokenizers/qwen2_5", "data/tokenizers/qwen2_5/cases.json", 100, true, true},
                    Source{"mistral_nemo", "data/tokenizers/mistral_nemo", "data/tokenizers/mistral_nemo/cases.json", 100, true, true},
                    Source{"stories260K", "data/models/stories260K/hf", "data/models/stories260K/tokenizer_cases.json", 99, true, false},
                    Source{"spm_test", "data/tokenizers/spm_test", "data/tokenizers/spm_test/cases.json", 98, false, true},
                    Source{"spm_bpe", "data/tokenizers/spm_bpe", "data/tokenizers/spm_bpe/cases.json", 98, false, true}),
    [](const auto& info) { return info.param.name; });

class IncrementalCases : public testing::TestWithParam<const char*> {};

TEST_P(IncrementalCases, GiveTheReferencePieces) {
  const std::filesystem::path folder = std::filesystem::path("data/tokenizers") / GetParam();
  const auto cases = shared_json(folder / "incremental.json");
  if (!cases) GTEST_SKIP() << "no test data in " << shared_folder() << " (set PENSTOCK_SHARED)";
  const Tokenizer tokenizer = Tokenizer::load(shared_folder() / folder).value();
  int count = 0;
  for (const Json& example : *cases) {
    const SpecialTokens special = example.at("skip_special_tokens").get<bool>() ? SpecialTokens::kSkip : SpecialTokens::kAsText;
    const auto ids = example.at("ids").get<std::vector<int32_t>>();
    StreamDecoder decoder(tokenizer, special);
    std::string text;
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::string piece = decoder.feed(ids[i]);
      EXPECT_EQ(piece, example.at("pieces")[i].get<std::string>()) << example.at("name") << " token " << i;
      text += piece;
    }
    const std::string rest = decoder.flush();
    EXPECT_EQ(rest, example.at("flush").get<std::string>()) << example.at("name");
    EXPECT_EQ(text + rest, tokenizer.decode(ids, special));
    ++count;
  }
  EXPECT_GE(count, 20) << "the file holds fewer cases than it should";
}

INSTANTIATE_TEST_SUITE_P(Text, IncrementalCases, testing::Values("gpt2", "qwen2_5", "mistral_nemo"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace penstock::text
