#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "base/utf8.h"
#include "text/grammar_case_test.h"

namespace penstock::text {
namespace {

using testing::HasSubstr;
constexpr auto kRegex = TextConstraint::Kind::kRegex;

struct Row {
  const char* pattern;
  std::vector<std::string> fits;
  std::vector<std::string> others;
};

TEST(RegexGrammar, TextsFitAsAWholeOrNot) {
  const std::vector<Row> rows = {
      {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
      {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
      {"(a|b)*c+d?", {"c", "abbac", "ccd"}, {"d", "abd", "cdd"}},
      {"a{3}", {"aaa"}, {"aa", "aaaa"}},
      {"a{2,}", {"aa", "aaaaaa"}, {"a"}},
      {"a{1,3}b", {"ab", "aaab"}, {"b", "aaaab"}},
      {"a{,3}", {"a{,3}"}, {"a"}},
      {"x*?y+?z??", {"y", "xxyyz"}, {"x"}},
      {"[a-c_]{2}", {"ab", "_c"}, {"ad", "a"}},
      {"[^a-c]", {"d", "\n", "é", "😀"}, {"a", "dd", "\xC3", "\xFF"}},
      {"[]a]", {"]", "a"}, {"b"}},
      {"[a\\]-]+", {"]-a"}, {"b"}},
      {".", {"a", "é", "漢", "😀"}, {"\n", "", "\x80", "\xC3", "ab"}},
      {"é{2}", {"éé"}, {"é", "\xC3\xA9\xA9"}},
      {"[à-ü]", {"é", "ü"}, {"e", "ý"}},
      {"[߿-ࠀ]", {"߿", "ࠀ"}, {"a", "ࠁ"}},
      {"\\d{4}-\\d\\d", {"2024-05"}, {"2024-5", "٢٠٢٤-٠٥"}},
      {"\\w+\\s\\W\\D\\S", {"ab_1 -xy"}, {"ab1-xy"}},
      {"\\x41\\u00e9\\u{1F600}\\t\\.\\/", {"Aé😀\t./"}, {"A"}},
      {"^(?:yes|no)$", {"yes", "no"}, {"maybe"}},
      {"^a$|^b", {"a", "b"}, {"ab"}},
      {"(?<year>\\d)(?P<m>x)", {"1x"}, {"x"}},
      {"(a*)*b", {"b", "aaab"}, {"a"}},
      {"(|a)+b", {"b", "ab", "aab"}, {""}},
  };
  for (const Row& row : rows) {
    GrammarCase grammar(kRegex, row.pattern);
    for (const auto& text : row.fits) EXPECT_TRUE(grammar.fits(text)) << row.pattern << " and '" << text << "'";
    for (const auto& text : row.others) EXPECT_FALSE(grammar.fits(text)) << row.pattern << " and '" << text << "'";
  }
}

TEST(RegexGrammar, EveryTextOfAClassIsUtf8) {
  GrammarCase grammar(kRegex, "([^a-y]|.){0,40}z");
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    const auto text = grammar.random_text(random, 100);
    ASSERT_TRUE(text);
    EXPECT_EQ(find_invalid_utf8(*text), std::string::npos);
  }
}

TEST(RegexGrammar, WhatIsNotSupportedIsNamedWithItsPlace) {
  const std::vector<std::pair<const char*, const char*>> rows = {
      {"a(?=b)", "lookahead at byte 1 is not supported"},
      {"a(?!b)", "lookahead"},
      {"(?<=a)b", "lookbehind at byte 0"},
      {"(?<!a)b", "lookbehind"},
      {"(a)\\1", "a backreference at byte 3"},
      {"(?P<x>a)(?P=x)", "a backreference"},
      {"\\bword", "a word boundary (\\b) at byte 0"},
      {"\\p{L}", "a Unicode property (\\p)"},
      {"(?i)a", "a group that begins with '(?'"},
      {"(?>a)", "an atomic group"},
      {"a++", "a possessive repetition"},
      {"[[:alpha:]]", "a POSIX class"},
      {"a^b", "an anchor ^ elsewhere than at the start"},
      {"(a$)b", "an anchor $ elsewhere than at the end"},
      {"\\q", "the escape \\q at byte 0"},
      {"(a", "a group without its ')' at byte 2"},
      {"a)", "a ')' without its '(' at byte 1"},
      {"[a", "a class without its ']'"},
      {"[b-a]", "a range that is none"},
      {"*a", "a repetition of nothing at byte 0"},
      {"a{3,2}", "bounds are the wrong way around"},
      {"a{20000}", "a repetition of more than 10000"},
      {"\\ud800", "an escape that is no character"},
      {"\xFF", "expected UTF-8"},
      {"[^\\s\\S]", "no text fits"},
      {"", "only the empty text fits"},
  };
  for (const auto& [pattern, message] : rows) EXPECT_THAT(refusal_of(kRegex, pattern), HasSubstr(message)) << pattern;
  EXPECT_THAT(refusal_of(kRegex, std::string(10000, 'a')), HasSubstr("a pattern of 10000 bytes; expected at most 8192"));
  EXPECT_THAT(refusal_of(kRegex, std::string(101, '(') + "a" + std::string(101, ')')), HasSubstr("nested deeper than 100"));
}

TEST(RegexGrammar, WhatExplodesIsRefusedOrFollowedInBoundedSteps) {
  for (const char* pattern : {"(a{1000}){1000}", "((((a{99}){99}){99}){99}){99}", "(((((){9999}){9999}){9999}){9999}){9999}a", "(.{100}){1000}"}) {
    EXPECT_THAT(refusal_of(kRegex, pattern), HasSubstr("expected fewer")) << pattern;
  }
  // 2^40 states of a plain automaton: only those are made that a text visits.
  GrammarCase grammar(kRegex, "(a|b)*a(a|b){39}");
  EXPECT_TRUE(grammar.fits(std::string(1000, 'b') + "a" + std::string(39, 'b')));
  EXPECT_FALSE(grammar.fits(std::string(1000, 'b') + "a" + std::string(38, 'b')));
  // A text that is in many places at once is given up.
  GrammarCase crowded(kRegex, "(a?){5000}(a|b|c){5000}");
  EXPECT_THROW((void)crowded.fits(std::string(10000, 'a')), Error);
}

TEST(RegexGrammar, ChoicesAreTextsAsTheyAre) {
  GrammarCase grammar(TextConstraint::Kind::kChoice, R"(["a.c", "a.cd", "é"])");
  for (const char* text : {"a.c", "a.cd", "é"}) EXPECT_TRUE(grammar.fits(text)) << text;
  for (const char* text : {"abc", "", "a.", "a.cde"}) EXPECT_FALSE(grammar.fits(text)) << text;
  EXPECT_THAT(refusal_of(TextConstraint::Kind::kChoice, "[]"), HasSubstr("expected a list of at least one text"));
  EXPECT_THAT(refusal_of(TextConstraint::Kind::kChoice, R"(["a", ""])"), HasSubstr("texts of at least one byte"));
  EXPECT_THAT(refusal_of(TextConstraint::Kind::kChoice, "[1]"), HasSubstr("found 1"));
}

}  // namespace
}  // namespace penstock::text
