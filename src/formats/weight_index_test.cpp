#include "formats/weight_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::formats {
namespace {

using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

std::string refusal(std::string_view text) {
  try {
    (void)parse_weight_index(text, "x.json");
    return "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kDataLoss);
    return e.message();
  }
}

TEST(WeightIndex, NamesTheFileOfEachTensor) {
  EXPECT_THAT(parse_weight_index(R"({"metadata": {"total_size": 3}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})", "x.json"),
              UnorderedElementsAre(Pair("a", "1.safetensors"), Pair("b", "2.safetensors")));
}

TEST(WeightIndex, IsRefusedWithItsNameWhereItIsNone) {
  EXPECT_EQ(refusal("{\"weight_map\": }"), "x.json: it is not JSON: error at byte 16");
  for (const char* text : {"", "[]", "{}", R"({"weight_map": 3})", R"({"weight_map": {"w": 3}})", R"({"weight_map": {"w": 1e999}})"}) EXPECT_THAT(refusal(text), HasSubstr("x.json: ")) << text;
}

TEST(WeightIndex, MayNotLeadOutOfItsFolder) {
  for (const char* name : {"../x", "/etc/passwd", "..", ".", "a/b", "", "a\\\\b"}) {
    EXPECT_THAT(refusal(R"({"weight_map": {"w": ")" + std::string(name) + "\"}}"), HasSubstr("expected the name of a file in this folder")) << name;
  }
  EXPECT_NE(refusal(R"({"weight_map": {"w": "a\u0000b"}})"), "accepted");
}

}  // namespace
}  // namespace penstock::formats
