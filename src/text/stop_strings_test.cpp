#include "text/stop_strings.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace penstock::text {
namespace {

// Each feed's text in brackets; "!" at a match, else the flush.
std::string shown(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopStrings matcher(stops);
  std::string out;
  for (const std::string& piece : pieces) out += fmt::format("[{}]", matcher.feed(piece));
  return out + (matcher.matched() ? "!" : matcher.flush());
}

TEST(StopStrings, PassEverythingAtOnceWhenThereAreNone) { EXPECT_EQ(shown({}, {"a", "bc"}), "[a][bc]"); }

TEST(StopStrings, HoldBackWhatMayBecomeAMatch) {
  EXPECT_EQ(shown({"END"}, {"abE", "N", "x", "y"}), "[ab][][ENx][y]");
  EXPECT_EQ(shown({"END"}, {"abE", "N"}), "[ab][]EN") << "flushed when the text ends";
}

TEST(StopStrings, ShowOnlyWhatStandsBeforeTheMatch) {
  EXPECT_EQ(shown({"END"}, {"abEN", "Dcd", "more"}), "[ab][][]!");
  EXPECT_EQ(shown({"END"}, {"END"}), "[]!");
}

TEST(StopStrings, FindAMatchThatBeginsInsideAFailedOne) {
  EXPECT_EQ(shown({"aab"}, {"aaab"}), "[a]!");
  EXPECT_EQ(shown({"abac", "ba"}, {"a", "b", "a"}), "[][][a]!") << "the match that ends first counts";
}

TEST(StopStrings, TakeTheLongestOfThoseThatEndTogether) { EXPECT_EQ(shown({"b", "ab"}, {"xab"}), "[x]!"); }

TEST(StopStrings, KeepCharactersWhole) { EXPECT_EQ(shown({"\xC3\xA9!"}, {"a\xC3\xA9", "?"}), "[a][\xC3\xA9?]"); }

// What the contract says, the slow way.
std::string reference(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest) + "!";
  }
  return text;
}

TEST(StopStrings, AgreeWithAPlainSearchForEveryTextAndCut) {
  const std::vector<std::vector<std::string>> sets = {{"aab"}, {"aba", "bb"}, {"abab", "ba"}, {"aaaa", "bab"}};
  for (const auto& stops : sets) {
    for (int bits = 0; bits < 256; ++bits) {  // every text of a and b of 8 characters
      std::string text;
      for (int i = 0; i < 8; ++i) text += (bits >> i & 1) != 0 ? 'a' : 'b';
      for (size_t cut = 1; cut <= 3; ++cut) {
        StopStrings matcher(stops);
        std::string out;
        for (size_t at = 0; at < text.size(); at += cut) out += matcher.feed(text.substr(at, cut));
        out += matcher.matched() ? "!" : matcher.flush();
        ASSERT_EQ(out, reference(stops, text)) << text << " cut by " << cut;
      }
    }
  }
}

}  // namespace
}  // namespace penstock::text
