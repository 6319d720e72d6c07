#include "text/utf8_stream.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace penstock::text {
namespace {

constexpr const char* kBad = "\xEF\xBF\xBD";

// Each feed's text in brackets, the flush after them.
std::string pieces_of(const std::vector<std::string>& feeds) {
  Utf8Stream stream;
  std::string out;
  for (const std::string& bytes : feeds) out += fmt::format("[{}]", stream.feed(bytes));
  return out + stream.flush();
}

TEST(Utf8Stream, WaitsForWholeCharacters) {
  EXPECT_EQ(pieces_of({"a\xE2", "\x82", "\xAC z", "\xF0\x9F\x98", "\x80"}), "[a][][\xE2\x82\xAC z][][\xF0\x9F\x98\x80]");
}

TEST(Utf8Stream, ReplacesEachMaximalInvalidPartAsSoonAsItIsCertain) {
  EXPECT_EQ(pieces_of({"\x80", "\xE2\x82", "A"}), std::string("[") + kBad + "][][" + kBad + "A]");
  EXPECT_EQ(pieces_of({"\xE0\x80\x80"}), std::string("[") + kBad + kBad + kBad + "]") << "0xE0 cannot be followed by 0x80";
  EXPECT_EQ(pieces_of({"\xF0\x9F\x98\xC3\xA9"}), std::string("[") + kBad + "\xC3\xA9]");
  EXPECT_EQ(pieces_of({"\xED\xA0\x80"}), std::string("[") + kBad + kBad + kBad + "]") << "a surrogate";
}

TEST(Utf8Stream, FlushesAnUnfinishedCharacterOnceAndStartsAfresh) {
  Utf8Stream stream;
  EXPECT_EQ(stream.feed("\xE2\x82"), "");
  EXPECT_EQ(stream.flush(), kBad);
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.feed("\xAC"), kBad) << "nothing of the old character is left";
}

TEST(Utf8Stream, GivesTheSameTextHoweverTheBytesAreCut) {
  // All texts of three bytes out of one of each kind, then a character that must survive whatever came before.
  const std::string kinds = "A\x80\x9F\xA0\xBF\xC3\xE0\xE2\xED\xF0\xF4\xFF";
  for (const char a : kinds) {
    for (const char b : kinds) {
      for (const char c : kinds) {
        const std::string bytes = {a, b, c, 'Z'};
        Utf8Stream whole, single;
        const std::string expected = whole.feed(bytes) + whole.flush();
        std::string text;
        for (const char byte : bytes) text += single.feed(std::string(1, byte));
        ASSERT_EQ(text + single.flush(), expected);
        ASSERT_EQ(find_invalid_utf8(expected), std::string_view::npos);
        ASSERT_EQ(expected.back(), 'Z');
      }
    }
  }
}

}  // namespace
}  // namespace penstock::text
