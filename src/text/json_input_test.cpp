#include "text/json_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::text {
namespace {

using testing::HasSubstr;

std::string object_of(int num_keys) {
  std::string text = "{";
  for (int i = 0; i < num_keys; ++i) text += fmt::format("{}\"{}\":0", i == 0 ? "" : ",", i);
  return text + "}";
}

TEST(JsonInput, MembersKeepTheirOrderIfAskedFor) {
  EXPECT_EQ(parse_ordered_json(R"({"b": 1, "a": {"d": 2, "c": 3}})", "it", Code::kInvalidArgument, 4).value().dump(), R"({"b":1,"a":{"d":2,"c":3}})");
}

TEST(JsonInput, AZeroByteIsNoEnd) {
  for (const std::string_view text : {std::string_view("{}\0", 3), std::string_view("{}\0{", 4), std::string_view("\0", 1), std::string_view("[\"\0\"]", 5)}) {
    const auto parsed = parse_json(text, "it", Code::kInvalidArgument);
    ASSERT_FALSE(parsed);
    EXPECT_THAT(parsed.error().message(), HasSubstr("it: expected JSON, found a zero byte at offset"));
  }
  EXPECT_TRUE(parse_json("\"\\u0000\"", "it", Code::kInvalidArgument));
}

TEST(JsonInput, SoManyKeysInAnObjectThatTheirOrderTakesTooLongAreRefused) {
  const std::string few = object_of(9'000), many = object_of(11'000);
  EXPECT_TRUE(parse_ordered_json(few, "it", Code::kInvalidArgument, 4));
  EXPECT_TRUE(parse_json(many, "it", Code::kInvalidArgument));
  for (const std::string& text : {many, "[[" + many + "]]", "{\"a\":" + many + ",\"b\":1}", "[" + few + "," + few + "]"}) {
    const auto parsed = parse_ordered_json(text, "it", Code::kInvalidArgument, 4);
    ASSERT_FALSE(parsed);
    EXPECT_THAT(parsed.error().message(), HasSubstr("it: too many keys in one object"));
  }
  std::string small = "[{\"a\":1}";  // many objects with few keys each
  for (int i = 0; i < 20'000; ++i) small += ",{\"a\":{\"b\":1,\"c\":2}}";
  EXPECT_TRUE(parse_ordered_json(small + "]", "it", Code::kInvalidArgument, 4));
}

}  // namespace
}  // namespace penstock::text
