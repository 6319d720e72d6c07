#include "base/utf8.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(Utf8, EveryScalarValueIsValidOnceEncoded) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, code);
    ASSERT_EQ(find_invalid_utf8(text), std::string_view::npos) << static_cast<uint32_t>(code);
    for (size_t cut = 1; cut < text.size(); ++cut) ASSERT_EQ(find_invalid_utf8(text.substr(0, cut)), 0u) << static_cast<uint32_t>(code);
  }
}

TEST(Utf8, FindsOverlongFormsSurrogatesAndStrayBytes) {
  for (const char* bad :
       {"ab\xC0\x80", "ab\xE0\x9F\xBF", "ab\xED\xA0\x80", "ab\xF0\x8F\xBF\xBF", "ab\xF4\x90\x80\x80", "ab\xF5", "ab\x80", "ab\xC3("}) {
    EXPECT_EQ(find_invalid_utf8(bad), 2u) << bad;
  }
}

TEST(Utf8, CutsBetweenCharacters) {
  EXPECT_EQ(utf8_prefix("a\xC3\xA9z", 2), "a");
  EXPECT_EQ(utf8_prefix("a\xC3\xA9z", 3), "a\xC3\xA9");
  EXPECT_EQ(utf8_prefix("abc", 9), "abc");
}

}  // namespace
}  // namespace penstock
