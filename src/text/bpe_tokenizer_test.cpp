// Small tokenizer.json files of every kind of step, with ids worked out by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/file.h"
#include "base/temp_dir.h"
#include "text/bpe_model.h"
#include "text/tokenizer.h"

namespace penstock::text {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;

constexpr const char* kWord = "\xE2\x96\x81";  // U+2581

// A BPE model over characters; `tokens` get the ids 0, 1, ...
Json document_of(const std::vector<std::string>& tokens, const std::vector<std::string>& merges) {
  Json vocab = Json::object();
  for (const std::string& token : tokens) vocab.emplace(token, vocab.size());
  return {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}, {"decoder", {{"type", "Fuse"}}}};
}

Tokenizer load(const Json& document) {
  const TempDir folder;
  write_file_atomic(folder.path() / "tokenizer.json", document.dump());
  return Tokenizer::load(folder.path()).value();
}

// The pieces that a pre-tokenizer cuts: every piece is told by its characters, because nothing merges across pieces.
std::string pieces_of(const Json& pre_tokenizer, const std::string& text) {
  Json document = document_of({"?"}, {});
  document["model"]["unk_token"] = "?";
  document["model"]["fuse_unk"] = true;  // one token a piece
  document["pre_tokenizer"] = pre_tokenizer;
  return std::to_string(load(document).encode(text).size());
}

TEST(BpeTokenizer, MergesTheFirstRuleFirstAndTheLeftmostOfSeveral) {
  const Tokenizer tokenizer = load(document_of({"a", "b", "c", "bc", "ab", "aa"}, {"b c", "a b", "a a"}));
  EXPECT_THAT(tokenizer.encode("abc"), ElementsAre(0, 3));
  EXPECT_THAT(tokenizer.encode("abab"), ElementsAre(4, 4));
  EXPECT_THAT(tokenizer.encode("aaa"), ElementsAre(5, 0));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("abcaab")), "abcaab");
}

TEST(BpeTokenizer, TakesMergesInPairFormToo) {
  Json document = document_of({"a", "b", "ab"}, {});
  document["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_THAT(load(document).encode("ab"), ElementsAre(2));
}

TEST(BpeTokenizer, GivesLongPiecesTheSameTokensAsShortOnes) {
  // Random rules over three letters, random texts around the length at which the search changes; a plain search is the reference.
  std::mt19937 random(7);
  for (int round = 0; round < 40; ++round) {
    auto vocabulary = std::make_shared<Vocabulary>();
    std::vector<std::string> tokens = {"a", "b", "c"};
    std::vector<BpeMerge> merges;
    for (int32_t id = 0; id < 3; ++id) vocabulary->add(id, tokens[static_cast<size_t>(id)], "test");
    while (merges.size() < 25) {
      const auto left = static_cast<int32_t>(random() % tokens.size()), right = static_cast<int32_t>(random() % tokens.size());
      const std::string joined = tokens[static_cast<size_t>(left)] + tokens[static_cast<size_t>(right)];
      int32_t result = vocabulary->find(joined);
      if (result == kNoToken) {
        result = static_cast<int32_t>(tokens.size());
        vocabulary->add(result, joined, "test");
        tokens.push_back(joined);
      }
      merges.push_back({left, right, result});
    }
    const BpeModel model(vocabulary, merges, {});
    for (size_t length : {1, 2, 5, 31, 32, 33, 34, 70}) {
      std::string text;
      std::vector<int32_t> expected;
      for (size_t i = 0; i < length; ++i) {
        expected.push_back(static_cast<int32_t>(random() % 3));
        text += tokens[static_cast<size_t>(expected.back())];
      }
      for (bool merged = true; merged;) {
        merged = false;
        size_t best = merges.size(), at = 0;
        for (size_t i = 0; i + 1 < expected.size(); ++i) {
          for (size_t rule = merges.size(); rule-- > 0;) {  // of two equal rules the last one counts
            if (merges[rule].left != expected[i] || merges[rule].right != expected[i + 1]) continue;
            if (rule < best) best = rule, at = i, merged = true;
            break;
          }
        }
        if (!merged) break;
        expected[at] = merges[best].result;
        expected.erase(expected.begin() + static_cast<ptrdiff_t>(at) + 1);
      }
      std::vector<int32_t> ids;
      model.encode(text, ids);
      EXPECT_EQ(ids, expected) << text;
    }
  }
}

TEST(BpeTokenizer, FallsBackToBytesOrToTheUnknownToken) {
  Json document = document_of({"?", "a", "<0xC3>", "<0xA9>"}, {});
  document["model"]["unk_token"] = "?";
  EXPECT_THAT(load(document).encode("\xC3\xA9zza"), ElementsAre(0, 0, 0, 1)) << "no fallback, no fusing";
  document["model"]["fuse_unk"] = true;
  EXPECT_THAT(load(document).encode("\xC3\xA9zza"), ElementsAre(0, 1));
  document["model"]["byte_fallback"] = true;
  document["decoder"] = {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
  const Tokenizer tokenizer = load(document);
  EXPECT_THAT(tokenizer.encode("a\xC3\xA9"), ElementsAre(1, 2, 3));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 2, 3}), "a\xC3\xA9");
  EXPECT_THAT(tokenizer.encode("a\xFF"), ElementsAre(1, 0)) << "what is no UTF-8 is U+FFFD, which is unknown";
}

TEST(BpeTokenizer, CutsWordsOnlyWhereNoRuleCrossesThem) {
  const std::string w = kWord;
  Json document = document_of({w, "a", "b", w + w, "a" + w}, {w + " " + w});
  document["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", w}};
  EXPECT_THAT(load(document).encode("a  b a"), ElementsAre(1, 3, 2, 0, 1));
  document["model"]["merges"].push_back("a " + w);
  EXPECT_THAT(load(document).encode("a b a"), ElementsAre(4, 2, 0, 1)) << "here a rule crosses the start of a word";
}

TEST(BpeTokenizer, PutsTheTemplatesTokensAroundTheText) {
  Json document = document_of({"a", "<s>", "</s>"}, {});
  document["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}, {{"SpecialToken", {{"id", "</s>"}}}}}},
                                {"special_tokens", {{"<s>", {{"ids", {1}}}}, {"</s>", {{"ids", {2}}}}}}};
  EXPECT_THAT(load(document).encode("aa", {.add_special_tokens = true}), ElementsAre(1, 0, 0, 2));
  EXPECT_THAT(load(document).encode("aa"), ElementsAre(0, 0));
}

TEST(BpeTokenizer, FindsAddedTokensAsTheirFlagsSay) {
  Json document = document_of({"a", "b", " ", "_"}, {});
  const auto added = [&](int id, const char* content, const char* flag) {
    document["added_tokens"].push_back({{"id", id}, {"content", content}, {"special", false}, {"normalized", false}});
    if (*flag != '\0') document["added_tokens"].back()[flag] = true;
  };
  added(4, "<l>", "lstrip");
  added(5, "<r>", "rstrip");
  added(6, "ab", "single_word");
  added(7, "<r><r>", "");
  const Tokenizer tokenizer = load(document);
  EXPECT_THAT(tokenizer.encode("a  <l> b"), ElementsAre(0, 4, 2, 1));
  EXPECT_THAT(tokenizer.encode("a <r>  b"), ElementsAre(0, 2, 5, 1));
  EXPECT_THAT(tokenizer.encode("<r>  <l>"), ElementsAre(5, 4)) << "the space is taken once";
  EXPECT_THAT(tokenizer.encode("<r><r>"), ElementsAre(7)) << "the longest";
  EXPECT_THAT(tokenizer.encode("ab aba _ab"), ElementsAre(6, 2, 0, 1, 0, 2, 3, 0, 1));
  for (const char* beside : {"\xE2\x80\x8D", "\xE2\x80\x8C", "\xE2\x93\x90", "\xF0\x9F\x84\xB0"}) {  // joiners and letters in rings and squares
    EXPECT_THAT(tokenizer.encode("ab" + std::string(beside)), ElementsAre(0, 1)) << beside;
    EXPECT_THAT(tokenizer.encode(std::string(beside) + "ab"), ElementsAre(0, 1)) << beside;
  }
  EXPECT_THAT(tokenizer.encode("ab\xE2\x80\x8B"), ElementsAre(6)) << "a space of no width is no part of a word";
}

TEST(BpeTokenizer, TokensOfWhiteSpaceBehindOneThatTakesItAreThereAsInTheReference) {
  Json document = document_of({"a", " "}, {});
  document["added_tokens"] = {{{"id", 2}, {"content", "<r>"}, {"special", true}, {"rstrip", true}},
                              {{"id", 3}, {"content", "    "}, {"special", false}, {"normalized", false}}};
  const Tokenizer tokenizer = load(document);
  EXPECT_THAT(tokenizer.encode("<r>     a", {.parse_special_tokens = true}), ElementsAre(2, 3, 1, 0)) << "as tokenizers 0.23 does";
  EXPECT_THAT(tokenizer.encode("<r>   a", {.parse_special_tokens = true}), ElementsAre(2, 0));
}

TEST(BpeTokenizer, LooksForNormalizedTokensInNormalizedText) {
  Json document = document_of({"a", "x"}, {});
  document["normalizer"] = {{"type", "Lowercase"}};
  document["added_tokens"] = {{{"id", 2}, {"content", "XX"}, {"normalized", true}}, {{"id", 3}, {"content", "AX"}, {"normalized", false}}};
  const Tokenizer tokenizer = load(document);
  EXPECT_THAT(tokenizer.encode("aXxAXax"), ElementsAre(0, 2, 3, 0, 1));
}

TEST(BpeTokenizer, Normalizes) {
  const auto normalized = [](const Json& normalizer, const std::string& text) {
    Json document = document_of({}, {});
    document["normalizer"] = normalizer;
    document["model"]["byte_fallback"] = true;
    for (int byte = 0; byte < 256; ++byte) document["model"]["vocab"][fmt::format("<0x{:02X}>", byte)] = byte;
    std::string out;
    for (const int32_t id : load(document).encode(text)) out += static_cast<char>(id);
    return out;
  };
  EXPECT_EQ(normalized({{"type", "NFC"}}, "xe\xCC\x81y e\xCC\x81"), "x\xC3\xA9y \xC3\xA9");
  EXPECT_EQ(normalized({{"type", "NFD"}}, "x\xC3\xA9"), "xe\xCC\x81");
  EXPECT_EQ(normalized({{"type", "NFKC"}}, "\xEF\xAC\x81 x\xC2\xB2"), "fi x2");
  EXPECT_EQ(normalized({{"type", "NFKD"}}, "\xEF\xAC\x81\xC3\xA9"), "fie\xCC\x81");
  EXPECT_EQ(normalized({{"type", "NFC"}}, "\xED\x95\x9C \xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"), "\xED\x95\x9C \xED\x95\x9C") << "Hangul";
  EXPECT_EQ(normalized({{"type", "NFD"}}, "a\xCC\x81\xCC\x96"), "a\xCC\x96\xCC\x81") << "marks by their classes, 220 before 230";
  EXPECT_EQ(normalized({{"type", "NFC"}}, "a\xCC\x96\xCC\x81"), "\xC3\xA1\xCC\x96");
  std::string above, below;  // in the square of its length this would take minutes
  for (int i = 0; i < 100'000; ++i) {
    above += "\xCC\x81";
    below += "\xCC\x96";
  }
  EXPECT_EQ(normalized({{"type", "NFD"}}, "a" + above + below), "a" + below + above);
  EXPECT_EQ(normalized({{"type", "Lowercase"}}, "A\xC3\x89\xC4\xB0"), "a\xC3\xA9i\xCC\x87");
  EXPECT_EQ(normalized({{"type", "StripAccents"}}, "e\xCC\x81x"), "ex");
  EXPECT_EQ(normalized({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, " \xC2\xA0x "), "x ");
  EXPECT_EQ(normalized({{"type", "Strip"}}, " x \xE3\x80\x80"), "x");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "_"}}, "x"), "_x");
  EXPECT_EQ(normalized({{"type", "Prepend"}, {"prepend", "_"}}, ""), "");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"String", "aa"}}}, {"content", "b"}}, "aaaxa"), "baxa");
  EXPECT_EQ(normalized({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", "-"}}, "a   b c"), "a-b c");
  EXPECT_EQ(normalized({{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}, {{"type", "Prepend"}, {"prepend", "A"}}}}}, "B"), "Ab");
}

TEST(BpeTokenizer, CutsPieces) {
  const auto split = [](const char* behavior, bool invert = false) {
    return Json{{"type", "Split"}, {"pattern", {{"String", "-"}}}, {"behavior", behavior}, {"invert", invert}};
  };
  EXPECT_EQ(pieces_of(split("Isolated"), "a--b-"), "5");
  EXPECT_EQ(pieces_of(split("Removed"), "a--b-"), "2");
  EXPECT_EQ(pieces_of(split("Removed", true), "a--b-"), "3");
  EXPECT_EQ(pieces_of(split("Contiguous"), "a--b-"), "4");
  EXPECT_EQ(pieces_of(split("MergedWithPrevious"), "a--b-"), "3");
  EXPECT_EQ(pieces_of(split("MergedWithNext"), "a--b-"), "4");
  EXPECT_EQ(pieces_of({{"type", "Digits"}, {"individual_digits", true}}, "a12\xD9\xA3"), "4");
  EXPECT_EQ(pieces_of({{"type", "Digits"}}, "a12b"), "3");
  EXPECT_EQ(pieces_of({{"type", "Whitespace"}}, " ab, \xC3\xA9!! "), "4");
  EXPECT_EQ(pieces_of({{"type", "WhitespaceSplit"}}, " ab, c "), "2");
  EXPECT_EQ(pieces_of({{"type", "Punctuation"}}, "a,b$\xE2\x80\x94"), "5");
}

TEST(BpeTokenizer, CutsAtTheWhiteSpaceOfUnicode) {
  const auto split = [](const char* pattern) { return Json{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}}; };
  const std::string vowel_separator = "\xE1\xA0\x8E";  // U+180E: white space to PCRE2, not to Unicode
  EXPECT_EQ(pieces_of(split("\\s"), "a\xE3\x80\x80" + vowel_separator), "3");
  EXPECT_EQ(pieces_of(split("[\\s-]"), vowel_separator + "\xC2\xA0"), "2");
  EXPECT_EQ(pieces_of(split("[^\\S]"), vowel_separator + "\xC2\xA0"), "2");
  EXPECT_EQ(pieces_of(split("\\S"), vowel_separator + " b"), "3");
  EXPECT_EQ(pieces_of(split("(?i:'s)"), "a'\xC5\xBF"), "2") << "U+017F is a small s";
  EXPECT_EQ(pieces_of(split("\\h+"), "xfFgg"), "3") << "hexadecimal digits";
  EXPECT_EQ(pieces_of(split("[\\u0061-\\u0063]+"), "xabcg"), "3") << "code points by number";
  EXPECT_EQ(pieces_of(split("^|b*"), "abba"), "3") << "empty matches cut nothing";
}

TEST(BpeTokenizer, ReplacesAndPrependsWordSymbols) {
  const std::string w = kWord;
  Json document = document_of({w, "a", w + "a"}, {w + " a"});
  document["added_tokens"] = {{{"id", 3}, {"content", "<s>"}, {"special", true}}};
  const auto with = [&](const Json& change) {
    Json step = {{"type", "Metaspace"}, {"replacement", w}};
    step.update(change);
    document["pre_tokenizer"] = document["decoder"] = step;
    return load(document);
  };
  const EncodeOptions parse{.parse_special_tokens = true};
  EXPECT_THAT(with({{"prepend_scheme", "always"}}).encode("a<s>a a", parse), ElementsAre(2, 3, 2, 2));
  EXPECT_THAT(with({{"prepend_scheme", "first"}}).encode("a<s>a a", parse), ElementsAre(2, 3, 1, 2));
  EXPECT_THAT(with({{"prepend_scheme", "first"}}).encode("<s>a", parse), ElementsAre(3, 1));
  EXPECT_THAT(with({{"prepend_scheme", "never"}}).encode("a a"), ElementsAre(1, 2));
  EXPECT_THAT(with({{"add_prefix_space", false}}).encode("a a"), ElementsAre(1, 2));
  EXPECT_THAT(with({{"split", false}}).encode(" a  a"), ElementsAre(2, 0, 2));
  EXPECT_EQ(with({{"prepend_scheme", "always"}}).decode(std::vector<int32_t>{2, 2}), "a a");
  EXPECT_EQ(with({{"prepend_scheme", "always"}}).decode(std::vector<int32_t>{3, 2, 2}, SpecialTokens::kAsText), "<s> a a");
  EXPECT_EQ(with({{"prepend_scheme", "never"}}).decode(std::vector<int32_t>{2, 2}), " a a");
}

TEST(BpeTokenizer, GivesUpOnAPatternThatTakesForever) {
  Json document = document_of({"?"}, {});
  document["model"]["unk_token"] = "?";
  document["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a|aa)+$"}}}, {"behavior", "Isolated"}};
  const Tokenizer tokenizer = load(document);
  try {
    (void)tokenizer.encode(std::string(200, 'a') + "b");
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kInvalidArgument);
    EXPECT_THAT(e.message(), testing::HasSubstr("regular expression gives up"));
  }
}

TEST(StreamDecoder, LeavesTheFirstSpaceOutAtTheStartOnly) {
  const std::string w = kWord;
  Json document = document_of({w + "a", "b"}, {});
  document["decoder"] = {{"type", "Sequence"},
                         {"decoders",
                          {{{"type", "Replace"}, {"pattern", {{"String", w}}}, {"content", " "}},
                           {{"type", "ByteFallback"}},
                           {{"type", "Fuse"}},
                           {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  const Tokenizer tokenizer = load(document);
  StreamDecoder start(tokenizer), middle(tokenizer, SpecialTokens::kSkip, false);
  EXPECT_EQ(start.feed(0), "a");
  EXPECT_EQ(start.feed(0), " a");
  EXPECT_EQ(middle.feed(0), " a");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 0}), "b a");
}

}  // namespace
}  // namespace penstock::text
