// tokenizer.json with a unigram model; the ids are those of Hugging Face's `tokenizers` 0.23.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/temp_dir.h"
#include "text/tokenizer.h"

namespace penstock::text {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kWord = "\xE2\x96\x81";  // U+2581

Json metaspace() { return {{"type", "Metaspace"}, {"replacement", kWord}, {"prepend_scheme", "always"}, {"split", true}}; }

Json document() {
  Json added = Json::array(), vocab = Json::array();
  for (const auto& [id, content] : {std::pair{0, "<unk>"}, {1, "<s>"}}) added.push_back({{"id", id}, {"content", content}, {"special", true}, {"normalized", false}});
  const std::string word = kWord;
  const std::pair<std::string, double> pieces[] = {{"<unk>", 0}, {"<s>", 0}, {word, -2}, {"a", -3}, {"b", -3.5}, {"ab", -4}, {word + "ab", -4.5}, {"bab", -5}, {"c", -6}, {"\xC3\xA9", -7}, {"aba", -7.6}};
  for (const auto& [piece, score] : pieces) vocab.push_back({piece, score});
  return {{"added_tokens", added}, {"pre_tokenizer", metaspace()}, {"decoder", metaspace()}, {"model", {{"type", "Unigram"}, {"unk_id", 0}, {"vocab", vocab}, {"byte_fallback", false}}}};
}

Result<Tokenizer> load(const Json& json) {
  const TempDir folder;
  write_file_atomic(folder.path() / "tokenizer.json", json.dump());
  return Tokenizer::load(folder.path());
}

TEST(UnigramTokenizer, TakesTheLikeliestWayThroughEachWord) {
  const Tokenizer tokenizer = load(document()).value();
  EXPECT_THAT(tokenizer.encode("ab"), ElementsAre(6));
  EXPECT_THAT(tokenizer.encode("abab ab"), ElementsAre(6, 5, 6));
  EXPECT_THAT(tokenizer.encode("ababab"), ElementsAre(6, 3, 7));
  EXPECT_THAT(tokenizer.encode("caf\xC3\xA9"), ElementsAre(2, 8, 3, 0, 9));
  EXPECT_THAT(tokenizer.encode(""), ElementsAre());
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("abab ab")), "abab ab");
}

TEST(UnigramTokenizer, MakesOneTokenOfNeighboursThatItDoesNotKnow) {
  const Tokenizer tokenizer = load(document()).value();
  EXPECT_THAT(tokenizer.encode("ba bxyzc"), ElementsAre(2, 4, 3, 2, 4, 0, 8));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("ba bxyzc"), SpecialTokens::kAsText), "ba b<unk>c");
}

TEST(UnigramTokenizer, MakesNoSpecialTokenOfPlainText) {
  const Tokenizer tokenizer = load(document()).value();
  EXPECT_THAT(tokenizer.encode("<s>ab", {.parse_special_tokens = true}), ElementsAre(1, 6));
  EXPECT_THAT(tokenizer.encode("<s>ab"), testing::Not(testing::Contains(1)));
}

TEST(UnigramTokenizer, FallsBackToBytesWhereTheModelSaysSo) {
  Json json = document();
  for (int byte = 0; byte < 256; ++byte) json["model"]["vocab"].push_back({fmt::format("<0x{:02X}>", byte), -9.0});
  json["model"]["byte_fallback"] = true;
  EXPECT_THAT(load(json).value().encode("abx\xC3\xBC"), ElementsAre(6, 131, 206, 199));
}

TEST(UnigramTokenizer, IsRefusedWhenItContradictsItself) {
  const auto complaint = [](auto change) {
    Json json = document();
    change(json["model"]);
    const auto loaded = load(json);
    return loaded.ok() ? std::string() : loaded.error().message();
  };
  EXPECT_THAT(complaint([](Json& model) { model["vocab"][3] = "a"; }), HasSubstr("model.vocab[3]: expected a token and its score"));
  EXPECT_THAT(complaint([](Json& model) { model["vocab"][3] = {"a", "x"}; }), HasSubstr("model.vocab[3]: expected a token and its score"));
  EXPECT_THAT(complaint([](Json& model) { model["vocab"][4] = {"a", -1}; }), HasSubstr("model.vocab[4]: expected a token that is not listed before"));
  EXPECT_THAT(complaint([](Json& model) { model["unk_id"] = 11; }), HasSubstr("model.unk_id: expected the id of a token"));
  EXPECT_THAT(complaint([](Json& model) { model.erase("unk_id"); }), HasSubstr("an unk_id for what has no token"));
}

TEST(UnigramTokenizer, NormalizesByAPrecompiledTable) {
  Json json = document();
  json["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "!"}};
  EXPECT_THAT(load(json).error().message(), HasSubstr("normalizer.precompiled_charsmap: expected base64"));
  json["normalizer"]["precompiled_charsmap"] = "AAA=";
  EXPECT_THAT(load(json).error().message(), HasSubstr("normalization table of 2 bytes"));
  json["normalizer"]["precompiled_charsmap"] = "";
  EXPECT_THAT(load(json).value().encode("ab"), ElementsAre(6)) << "no rules";
}

}  // namespace
}  // namespace penstock::text
