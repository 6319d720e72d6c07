// Small SentencePiece models, written here byte by byte, and damaged real ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>

#include "base/temp_dir.h"
#include "base/utf8.h"
#include "text/charsmap.h"
#include "text/sentencepiece_file.h"
#include "text/shared_cases_test.h"
#include "text/tokenizer.h"

namespace penstock::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kWord = "\xE2\x96\x81";  // U+2581

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}
std::string number_field(int field, uint64_t value) { return varint(static_cast<uint64_t>(field) << 3) + varint(value); }
std::string text_field(int field, const std::string& text) { return varint(static_cast<uint64_t>(field) << 3 | 2) + varint(text.size()) + text; }
std::string piece(const std::string& text, float score, int type = 1) {
  std::string bits(sizeof(score), '\0');
  std::memcpy(bits.data(), &score, sizeof(score));
  return text_field(1, text_field(1, text) + varint(2 << 3 | 5) + bits + number_field(3, static_cast<uint64_t>(type)));
}

constexpr int kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;

struct Model {
  std::string pieces = piece("<unk>", 0, kUnknown) + piece("<s>", 0, kControl) + piece("</s>", 0, kControl);
  std::string trainer = number_field(3, 2);                                      // BPE
  std::string normalizer = number_field(3, 0) + number_field(4, 0);              // no dummy prefix, spaces are kept
  [[nodiscard]] std::string bytes() const { return pieces + text_field(2, trainer) + text_field(3, normalizer); }
};

Result<Tokenizer> load_bytes(const std::string& bytes, const std::string& config = "{}") {
  const TempDir folder;
  write_file_atomic(folder.path() / "tokenizer.model", bytes);
  write_file_atomic(folder.path() / "tokenizer_config.json", config);
  return Tokenizer::load(folder.path());
}

TEST(SentencePiece, MergesTheHighestScoreFirst) {
  Model model;
  model.pieces += piece("a", -10) + piece("b", -10) + piece("c", -10) + piece("ab", -2) + piece("bc", -1) + piece("aa", -3);
  const Tokenizer tokenizer = load_bytes(model.bytes()).value();
  EXPECT_THAT(tokenizer.encode("abc"), ElementsAre(3, 7));
  EXPECT_THAT(tokenizer.encode("abab"), ElementsAre(6, 6));
  EXPECT_THAT(tokenizer.encode("aaa"), ElementsAre(8, 3));
  EXPECT_THAT(tokenizer.encode("axyb"), ElementsAre(3, 0, 4)) << "unknown characters are one token";
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{3, 0, 4}), "a \xE2\x81\x87 b");
}

TEST(SentencePiece, NeverCutsUserDefinedPiecesAndCutsUnusedOnes) {
  Model model;
  model.pieces += piece("a", -10) + piece("b", -10) + piece("ab", -2, kUnused) + piece("<|x|>", 0, kUserDefined) + piece("aba", -1);
  const Tokenizer tokenizer = load_bytes(model.bytes()).value();
  EXPECT_THAT(tokenizer.encode("ab<|x|>b"), ElementsAre(3, 4, 6, 4));
  EXPECT_THAT(tokenizer.encode("aba"), ElementsAre(7));
}

TEST(SentencePiece, TakesTheLikeliestPath) {
  Model model;
  model.trainer = number_field(3, 1);
  model.pieces += piece("a", -3) + piece("b", -3) + piece("ab", -5) + piece("aba", -9) + piece("zz", -1, kUserDefined);
  const Tokenizer tokenizer = load_bytes(model.bytes()).value();
  EXPECT_THAT(tokenizer.encode("aba"), ElementsAre(5, 3)) << "-8 beats -9";
  EXPECT_THAT(tokenizer.encode("bxya"), ElementsAre(4, 0, 3));
  EXPECT_THAT(tokenizer.encode("azzb"), ElementsAre(3, 7, 4));
}

TEST(SentencePiece, TreatsSpacesAsTheModelSays) {
  const std::string w = kWord;
  Model model;
  model.pieces += piece(w, -2) + piece("a", -3) + piece(w + "a", -1);
  const auto ids = [&](const std::string& normalizer, const std::string& text) {
    model.normalizer = normalizer;
    return load_bytes(model.bytes()).value().encode(text);
  };
  EXPECT_THAT(ids("", " a  a "), ElementsAre(5, 5)) << "the defaults: a symbol in front, single spaces";
  EXPECT_THAT(ids(number_field(4, 0), "a  a"), ElementsAre(5, 3, 5));
  EXPECT_THAT(ids(number_field(3, 0) + number_field(4, 0), "a a"), ElementsAre(4, 5));
  EXPECT_THAT(ids("", ""), ElementsAre());
  EXPECT_EQ(load_bytes(model.bytes()).value().decode(std::vector<int32_t>{5, 5}), "a a");
}

TEST(SentencePiece, SpellsUnknownCharactersInBytes) {
  Model model;
  model.trainer += number_field(35, 1);
  for (int byte = 0; byte < 256; ++byte) model.pieces += piece(fmt::format("<0x{:02X}>", byte), 0, kByte);
  const Tokenizer tokenizer = load_bytes(model.bytes()).value();
  EXPECT_THAT(tokenizer.encode("\xC3\xA9"), ElementsAre(3 + 0xC3, 3 + 0xA9));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{3 + 0xC3, 3 + 0xA9}), "\xC3\xA9");
}

TEST(SentencePiece, PutsBeginAndEndAroundATextAsTheConfigSays) {
  Model model;
  model.pieces += piece("a", -1);
  const EncodeOptions around{.add_special_tokens = true};
  EXPECT_THAT(load_bytes(model.bytes()).value().encode("a", around), ElementsAre(1, 3));
  EXPECT_THAT(load_bytes(model.bytes(), R"({"add_bos_token": false, "add_eos_token": true})").value().encode("a", around), ElementsAre(3, 2));
  EXPECT_THAT(load_bytes(model.bytes()).value().encode("a</s>", {.parse_special_tokens = true}), ElementsAre(3, 2));
  EXPECT_EQ(load_bytes(model.bytes()).value().end_id(), 2);
}

TEST(SentencePiece, HasTheTokensThatWereAddedToIt) {
  Model model;
  model.pieces += piece("a", -1);
  const std::string decoder = R"({"eos_token": {"content": "<|im_end|>"}, "added_tokens_decoder": {"0": {"content": "<unk>", "special": true},
      "5": {"content": "<think>", "special": false}, "4": {"content": "<|im_end|>", "special": true}}})";
  const Tokenizer tokenizer = load_bytes(model.bytes(), decoder).value();
  EXPECT_THAT(tokenizer.encode("a<|im_end|>a<think>", {.parse_special_tokens = true}), ElementsAre(3, 4, 3, 5));
  EXPECT_THAT(tokenizer.encode("a<think>"), ElementsAre(3, 5)) << "no special token";
  EXPECT_EQ(tokenizer.end_id(), 4);
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{3, 4, 5}), "a<think>");
  Model prefixed;
  prefixed.normalizer = "";  // a space is put before texts
  prefixed.pieces += piece("\xE2\x96\x81", -1);
  EXPECT_THAT(load_bytes(prefixed.bytes(), decoder).value().encode("<think><think>"), ElementsAre(5, 5)) << "each part of a text is one to the model, and there is none";
  EXPECT_EQ(tokenizer.vocab_size(), 6);

  const TempDir folder;
  write_file_atomic(folder.path() / "tokenizer.model", model.bytes());
  write_file_atomic(folder.path() / "added_tokens.json", R"({"<tool>": 5, "<|im_start|>": 4})");
  write_file_atomic(folder.path() / "special_tokens_map.json", R"({"additional_special_tokens": ["<|im_start|>"], "eos_token": "</s>"})");
  const Tokenizer older = Tokenizer::load(folder.path()).value();
  EXPECT_THAT(older.encode("<|im_start|>a<tool>", {.parse_special_tokens = true}), ElementsAre(4, 3, 5));
  EXPECT_TRUE(older.is_special(4));
  EXPECT_FALSE(older.is_special(5));
  EXPECT_EQ(older.end_id(), 2);

  const auto refusal = [&](const std::string& config) { return load_bytes(model.bytes(), config).error().message(); };
  EXPECT_THAT(refusal(R"({"added_tokens_decoder": {"9": {"content": "x"}}})"), HasSubstr("the token 'x' is added as id 9 behind 4 others"));
  EXPECT_THAT(refusal(R"({"added_tokens_decoder": {"x": {"content": "x"}}})"), HasSubstr("added_tokens_decoder: expected ids as keys"));
}

TEST(SentencePiece, RefusesBrokenFiles) {
  const auto refusal = [](const std::string& bytes) {
    const Result<Tokenizer> tokenizer = load_bytes(bytes);
    return tokenizer.ok() ? std::string("accepted") : tokenizer.error().message();
  };
  const std::string good = Model{}.bytes();
  EXPECT_EQ(refusal(good), "accepted");
  EXPECT_THAT(refusal(""), HasSubstr("it has no pieces"));
  EXPECT_THAT(refusal("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"), HasSubstr("bytes where 0 are left"));
  EXPECT_THAT(refusal("\x0A"), HasSubstr("ends in the middle of a number"));
  EXPECT_THAT(refusal("\x0B"), HasSubstr("unknown wire type 3"));
  EXPECT_THAT(refusal(good + piece("", 0)), HasSubstr("a piece that is empty"));
  EXPECT_THAT(refusal(good + piece("\xFF", 0)), HasSubstr("no UTF-8"));
  EXPECT_THAT(refusal(good + piece("a", 0, 9)), HasSubstr("a piece of type 9"));
  EXPECT_THAT(refusal(good + piece("a", 0.0f / 0.0f)), HasSubstr("is not finite"));
  EXPECT_THAT(refusal(good + piece("a", 0) + piece("a", 0)), HasSubstr("two pieces are 'a'"));
  EXPECT_THAT(refusal(good + piece("<0x1G>", 0, kByte)), HasSubstr("names none"));
  EXPECT_THAT(refusal(good + piece("?", 0, kUnknown)), HasSubstr("both the unknown token"));
  EXPECT_THAT(refusal(piece("a", 0)), HasSubstr("expected an unknown token"));
  EXPECT_THAT(refusal(good + text_field(2, number_field(3, 3))), HasSubstr("model type 3 is not supported"));
  EXPECT_THAT(refusal(good + text_field(2, number_field(35, 1))), HasSubstr("byte 0x00 has no token"));
  EXPECT_THAT(refusal(good + text_field(3, text_field(2, "\xFF\xFF\xFF\xFFxxxx"))), HasSubstr("the normalization table of 8 bytes"));
}

TEST(SentencePiece, StaysInsideATableOfRulesThatIsWrong) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    std::string table(4 + 64 * 4, '\0');
    table[0] = '\0';
    table[1] = '\1';  // 256 bytes of units
    for (size_t i = 4; i < table.size(); ++i) table[i] = static_cast<char>(random());
    const Charsmap rules(table + "ab", "test");
    std::string text;
    for (int i = 0; i < 200; ++i) text += static_cast<char>(random());
    for (size_t at = 0; at < text.size(); ++at) {
      const Charsmap::Match match = rules.longest(std::string_view(text).substr(at));
      ASSERT_LE(match.length, text.size() - at);
      ASSERT_LE(match.replacement.size(), 2u);
    }
  }
}

TEST(SentencePiece, SurvivesRandomDamageToARealModel) {
  const Result<std::string> whole = read_file(shared_folder() / "data/tokenizers/spm_test/tokenizer.model", 1 << 20);
  if (!whole.ok()) GTEST_SKIP() << "no test data in " << shared_folder() << " (set PENSTOCK_SHARED)";
  std::mt19937 random(5);
  int loaded = 0;
  for (int round = 0; round < 30; ++round) {
    std::string bytes = whole.value();
    const size_t first = round % 2 == 0 ? 16000 : 0;  // the table of rules starts there
    for (int i = 0; i < (round % 2 == 0 ? 20000 : 3); ++i) bytes[first + random() % (bytes.size() - first)] = static_cast<char>(random());
    if (round % 5 == 4) bytes.resize(random() % bytes.size());
    const Result<Tokenizer> tokenizer = load_bytes(bytes);
    if (!tokenizer.ok()) continue;
    ++loaded;
    const std::vector<int32_t> ids = tokenizer.value().encode("The \xEF\xAC\x81ne \xE2\x85\xA7 \xE3\x8D\xBF \xC3\xA9 text \xE3\x80\x80 x");
    EXPECT_EQ(find_invalid_utf8(tokenizer.value().decode(ids)), std::string_view::npos);
  }
  EXPECT_GT(loaded, 5);
}

}  // namespace
}  // namespace penstock::text
