#include "config/properties_reader.h"

#include <gtest/gtest.h>

namespace penstock::config {
namespace {

std::string render(const std::string& text) {
  const Result<std::vector<RawValue>> values = parse_properties(text, "f");
  if (!values.ok()) return values.error().message();
  std::string out;
  for (const RawValue& v : values.value()) out += fmt::format("{}: {}=<{}>\n", v.line, v.key, v.items.at(0));
  return out;
}

TEST(PropertiesReader, ReadsKeysCommentsAndEverySeparator) {
  EXPECT_EQ(render("# comment\n! comment\n\na=1\n  b : 2\nc 3\nd\t=\t4 \r\ne=\nf\ng==5\n"),
            "4: a=<1>\n5: b=<2>\n6: c=<3>\n7: d=<4 >\n8: e=<>\n9: f=<>\n10: g=<=5>\n");
}

TEST(PropertiesReader, JoinsContinuedLines) {
  EXPECT_EQ(render("a=1,\\\n   2,\\\n   # not a comment\nb=x\\\\\nc=last\\"), "1: a=<1,2,# not a comment>\n4: b=<x\\>\n5: c=<last>\n");
}

TEST(PropertiesReader, UnescapesKeysAndValues) {
  EXPECT_EQ(render("a\\ b\\=c=\\t\\q\\:\\\\\n"), "1: a b=c=<\tq:\\>\n");
  EXPECT_EQ(render("a=\\u00e9\\u20AC\\ud83d\\ude00"), "1: a=<\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80>\n");
}

TEST(PropertiesReader, RefusesBrokenEscapesAndKeysGivenTwice) {
  EXPECT_EQ(render("a=1\nb=\\u12g4\n"), "f:2: expected \\u with the four digits of a character");
  EXPECT_EQ(render("b=\\u12"), "f:1: expected \\u with the four digits of a character");
  EXPECT_EQ(render("b=\\ud83d"), "f:1: expected \\u with the four digits of a character");
  EXPECT_EQ(render("b=\\ude00"), "f:1: expected \\u with the four digits of a character");
  EXPECT_EQ(render("a=1\nb=2\na=3\n"), "f:3: key 'a' is given twice, first on line 1");
  EXPECT_EQ(render("=1\n"), "f:1: expected a key before '='");
}

}  // namespace
}  // namespace penstock::config
