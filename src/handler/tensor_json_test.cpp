#include "handler/tensor_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace penstock::handler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Json = nlohmann::json;

template <typename Number>
std::vector<Number> numbers(const Tensor& tensor) {
  std::vector<Number> all(tensor.data.size() / sizeof(Number));
  std::memcpy(all.data(), tensor.data.data(), tensor.data.size());
  return all;
}

Result<Tensor> lists(const char* json, std::optional<DataType> type = std::nullopt) { return tensor_of_lists(Json::parse(json), "x", type); }
std::string refusal(const Result<Tensor>& tensor) { return tensor ? "accepted" : tensor.error().message(); }
std::string again(const Tensor& tensor) {
  std::string json;
  append_lists(json, tensor);
  return json;
}

TEST(TensorJson, TheTypeFollowsFromTheItems) {
  EXPECT_EQ(lists("[[1, 2], [3, 4]]").value().type, DataType::kInt64);
  EXPECT_THAT(lists("[[1, 2], [3, 4]]").value().shape, ElementsAre(2, 2));
  const Tensor mixed = lists("[1, 2.5]").value();
  EXPECT_EQ(mixed.type, DataType::kFp32);
  EXPECT_THAT(numbers<float>(mixed), ElementsAre(1.0f, 2.5f));
  EXPECT_EQ(lists("[true, false]").value().type, DataType::kBool);
  EXPECT_EQ(lists("[\"a\", \"bc\"]").value().type, DataType::kBytes);
  EXPECT_TRUE(lists("7").value().shape.empty());
  EXPECT_THAT(lists("[[], []]").value().shape, ElementsAre(2, 0));
}

TEST(TensorJson, EveryTypeGoesThereAndBack) {
  for (const auto& [type, json] : std::vector<std::pair<DataType, const char*>>{
           {DataType::kBool, "[true, false]"}, {DataType::kUint8, "[0, 255]"}, {DataType::kUint16, "[65535]"}, {DataType::kUint32, "[4294967295]"},
           {DataType::kUint64, "[18446744073709551615]"}, {DataType::kInt8, "[-128, 127]"}, {DataType::kInt16, "[-32768]"},
           {DataType::kInt32, "[-2147483648]"}, {DataType::kInt64, "[-9223372036854775808]"}, {DataType::kFp32, "[0.1, -3]"},
           {DataType::kFp64, "[0.1, 1e+300]"}, {DataType::kBytes, "[\"a\\\"b\", \"\"]"}}) {
    const Tensor tensor = lists(json, type).value();
    EXPECT_EQ(check_tensor(tensor), std::nullopt) << to_string(type);
    EXPECT_EQ(again(tensor), json) << to_string(type);
  }
}

TEST(TensorJson, WhatDoesNotFitIsNamed) {
  EXPECT_THAT(refusal(lists("[[1, 2], [3]]")), HasSubstr("input 'x': expected lists of shape [2, 2], found a list of 1 at depth 2"));
  EXPECT_THAT(refusal(lists("[1, [2]]")), HasSubstr("expected INT64, found array"));
  EXPECT_THAT(refusal(lists("[[1], 2]")), HasSubstr("expected lists of shape [2, 1], found 2 at depth 2"));
  EXPECT_THAT(refusal(lists("[1, \"a\"]")), HasSubstr("expected INT64, found \"a\""));
  EXPECT_THAT(refusal(lists("[256]", DataType::kUint8)), HasSubstr("expected UINT8, found 256"));
  EXPECT_THAT(refusal(lists("[-1]", DataType::kUint64)), HasSubstr("expected UINT64, found -1"));
  EXPECT_THAT(refusal(lists("[-129]", DataType::kInt8)), HasSubstr("expected INT8"));
  EXPECT_THAT(refusal(lists("[1e39]", DataType::kFp32)), HasSubstr("expected FP32"));
  EXPECT_THAT(refusal(lists("[1.5]", DataType::kInt32)), HasSubstr("expected INT32, found 1.5"));
  EXPECT_THAT(refusal(lists("[1]", DataType::kFp16)), HasSubstr("JSON cannot hold FP16"));
  EXPECT_THAT(refusal(lists("[null]")), HasSubstr("expected INT64, found null"));
  EXPECT_THAT(refusal(lists("{}")), HasSubstr("expected INT64, found object"));
}

TEST(TensorJson, ItemsOfAKnownShapeMayStandInOneList) {
  for (const char* json : {"[1, 2, 3, 4]", "[[1, 2], [3, 4]]"}) {
    const Tensor tensor = tensor_of_items(Json::parse(json), "x", DataType::kInt32, {2, 2}).value();
    EXPECT_THAT(numbers<int32_t>(tensor), ElementsAre(1, 2, 3, 4));
    EXPECT_THAT(tensor.shape, ElementsAre(2, 2));
  }
  EXPECT_THAT(refusal(tensor_of_items(Json::parse("[1, 2, 3]"), "x", DataType::kInt32, {2, 2})), HasSubstr("expected lists of shape [2, 2]"));
  EXPECT_THAT(refusal(tensor_of_items(Json::parse("[1]"), "x", DataType::kInt32, {-1})), HasSubstr("negative"));
  EXPECT_THAT(refusal(tensor_of_items(Json::parse("[1]"), "x", DataType::kInt32, {1 << 30, 1 << 30, 1 << 30})), HasSubstr("more than"));
  EXPECT_THAT(refusal(tensor_of_items(Json::parse("[1]"), "x", DataType::kInt32, std::vector<int64_t>(17, 1))), HasSubstr("at most 16 dimensions"));
}

TEST(TensorJson, WhatIsNotFiniteIsNullAndHalvesAreNumbers) {
  Tensor tensor{"x", DataType::kFp32, {2}, ""};
  const float values[] = {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};
  tensor.data.assign(reinterpret_cast<const char*>(values), sizeof values);
  EXPECT_EQ(again(tensor), "[null, null]");
  const uint16_t halves[] = {0x3C00, 0xC000, 0x0001, 0x7BFF};
  EXPECT_EQ(again({"x", DataType::kFp16, {4}, std::string(reinterpret_cast<const char*>(halves), sizeof halves)}), "[1, -2, 5.9604645e-08, 65504]");
  const uint16_t brains[] = {0x3F80, 0xC040};
  EXPECT_EQ(again({"x", DataType::kBf16, {2}, std::string(reinterpret_cast<const char*>(brains), sizeof brains)}), "[1, -3]");
}

TEST(Tensor, DataMustFitTheShape) {
  EXPECT_EQ(check_tensor({"x", DataType::kFp32, {2}, std::string(8, '\0')}), std::nullopt);
  EXPECT_THAT(check_tensor({"x", DataType::kFp32, {2}, "abc"})->message(), HasSubstr("tensor 'x': FP32 of shape [2] has 8 bytes, found 3"));
  Tensor texts{"t", DataType::kBytes, {2}, ""};
  append_item(texts.data, "one");
  EXPECT_THAT(check_tensor(texts)->message(), HasSubstr("expected 2 items, found 1"));
  append_item(texts.data, "");
  EXPECT_EQ(check_tensor(texts), std::nullopt);
  EXPECT_THAT(items_of(texts), ElementsAre("one", ""));
  texts.data.pop_back();
  EXPECT_THAT(check_tensor(texts)->message(), HasSubstr("end within an item"));
  texts.data = std::string("\xFF\xFF\xFF\xFFx", 5);
  EXPECT_THAT(check_tensor(texts)->message(), HasSubstr("end within an item"));
}

TEST(Tensor, TypesHaveTheProtocolsNames) {
  EXPECT_EQ(parse_data_type("FP32"), DataType::kFp32);
  EXPECT_EQ(parse_data_type("fp32"), std::nullopt);
  EXPECT_EQ(to_string(DataType::kBytes), "BYTES");
  EXPECT_EQ(item_size(DataType::kInt16), 2u);
}

}  // namespace
}  // namespace penstock::handler
