#include "config/url_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::config {
namespace {

bool allowed(std::vector<std::string> expressions, std::string_view url) { return UrlRules::compile(expressions).value().allow(url); }

TEST(UrlRules, NoExpressionAllowsNoUrl) {
  EXPECT_FALSE(allowed({}, "https://a/b.mar"));
  EXPECT_FALSE(allowed({}, ""));
}

TEST(UrlRules, OneExpressionMustMatchTheWholeUrl) {
  EXPECT_TRUE(allowed({"file://x", "https://a/.*"}, "https://a/b.mar"));
  EXPECT_FALSE(allowed({"https://a/"}, "https://a/b.mar")) << "not a beginning";
  EXPECT_FALSE(allowed({"b\\.mar"}, "https://a/b.mar")) << "not an end";
  EXPECT_FALSE(allowed({"https://a/.*"}, "https://b/?https://a/b.mar"));
  EXPECT_FALSE(allowed({"https://a/b.mar|x"}, "https://a/b.mary")) << "alternatives are held to both ends, too";
  EXPECT_FALSE(allowed({"https://a/b.mar$"}, "https://a/b.mar\n"));
  EXPECT_FALSE(allowed({"https://a/.*"}, "https://a/b\nc")) << "a point is not a line's end";
}

TEST(UrlRules, AnExpressionThatTakesForEverDoesNotMatch) {
  EXPECT_FALSE(allowed({"(a+)+b"}, std::string(5000, 'a')));
}

TEST(UrlRules, SaysWhatIsNoExpression) {
  const auto wrong = UrlRules::compile(std::vector<std::string>{"https://("});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(wrong.error().message(), testing::HasSubstr("'https://(' is not a regular expression: "));
}

}  // namespace
}  // namespace penstock::config
