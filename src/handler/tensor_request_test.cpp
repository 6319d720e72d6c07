#include "handler/tensor_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "handler/infer_message.h"

namespace penstock::handler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Result<TensorRequest> parse(const std::string& body, const std::string& type = "", Headers headers = {}, RawInput raw = {}) {
  return parse_tensor_request({"id", std::move(headers), {{"body", type, body}}}, raw);
}
std::string refusal(const std::string& body, const std::string& type = "", Headers headers = {}) {
  const auto request = parse(body, type, std::move(headers));
  return request ? "accepted" : request.error().message();
}
// What a model that answers with its inputs would be answered with.
std::string echo(const std::string& body) {
  const auto request = parse(body).value();
  return make_tensor_answer(request, "m", request.inputs).value().bytes;
}
std::string floats(std::initializer_list<float> values) { return {reinterpret_cast<const char*>(values.begin()), values.size() * sizeof(float)}; }

TEST(TensorRequest, AnAnswerHasTheFormOfItsRequest) {
  EXPECT_EQ(echo("[[1, 2], [3, 4]]"), "[[1, 2], [3, 4]]");
  EXPECT_EQ(echo(R"({"instances": [[1.5], [2.5]]})"), R"({"predictions": [[1.5], [2.5]]})");
  EXPECT_EQ(echo(R"({"instances": [{"a": 1, "b": [2]}, {"a": 3, "b": [4]}]})"), R"({"predictions": {"a": [1, 3], "b": [[2], [4]]}})");
  EXPECT_EQ(echo(R"({"id": "7", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]}]})"),
            R"({"model_name": "m", "id": "7", "outputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1, 2]}]})");
}

TEST(TensorRequest, BytesAfterTheJsonComeBackAsBytesAfterTheJson) {
  const std::string data = floats({1, 2, 3});
  const std::string json = R"({"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 12}}]})";
  const auto request = parse(json + data, "application/octet-stream", {{"inference-header-content-length", std::to_string(json.size())}}).value();
  EXPECT_EQ(request.form, TensorForm::kBinary);
  EXPECT_EQ(request.inputs[0].data, data);
  const AnswerEvent answer = make_tensor_answer(request, "m", request.inputs).value();
  EXPECT_TRUE(answer.last);
  const size_t header = std::stoul(*find_header(answer.head->headers, kInferenceHeader));
  EXPECT_EQ(answer.bytes.substr(header), data);
  EXPECT_THAT(answer.bytes.substr(0, header), HasSubstr(R"("parameters": {"binary_data_size": 12})"));
}

TEST(TensorRequest, BytesAreRowsOfTheConfiguredShape) {
  const auto bytes = parse("abc").value();
  EXPECT_EQ(bytes.form, TensorForm::kRaw);
  EXPECT_EQ(bytes.inputs[0].type, DataType::kUint8);
  EXPECT_THAT(bytes.inputs[0].shape, ElementsAre(3));
  const auto rows = parse(floats({1, 2, 3, 4}), "application/octet-stream", {}, {DataType::kFp32, {2}}).value();
  EXPECT_THAT(rows.inputs[0].shape, ElementsAre(2, 2));
  EXPECT_EQ(make_tensor_answer(rows, "m", rows.inputs).value().bytes, floats({1, 2, 3, 4}));
  EXPECT_THAT(parse("abc", "", {}, {DataType::kFp32, {2}}).error().message(), HasSubstr("3 bytes; expected whole rows of FP32 [2], 8 bytes each"));
}

TEST(TensorRequest, SeveralPartsAreInputsOfTheirNames) {
  const auto request = parse_tensor_request({"id", {}, {{"a", "", "[1]"}, {"b", "application/json", "2.5"}}}, {}).value();
  EXPECT_FALSE(request.ordered);
  EXPECT_EQ(request.inputs[0].name, "a");
  EXPECT_EQ(request.inputs[1].type, DataType::kFp32);
}

TEST(TensorRequest, WhatIsWrongIsNamed) {
  EXPECT_THAT(parse_tensor_request({"id", {}, {}}, {}).error().message(), HasSubstr("no input"));
  EXPECT_THAT(refusal("[1"), HasSubstr("expected JSON"));
  EXPECT_THAT(refusal(std::string(30, '[')), HasSubstr("nested deeper than 20"));
  EXPECT_THAT(refusal("{}"), HasSubstr("expected lists of numbers, or an object with the key 'instances' or 'inputs'"));
  EXPECT_THAT(refusal(R"({"instances": []})"), HasSubstr("at least one item"));
  EXPECT_THAT(refusal(R"({"instances": [{}]})"), HasSubstr("expected keys"));
  EXPECT_THAT(refusal(R"({"instances": [{"a": 1}, {"b": 1}]})"), HasSubstr("the same keys in each"));
  EXPECT_THAT(refusal(R"({"instances": [{"a": 1}, 3]})"), HasSubstr("the same keys in each"));
  EXPECT_THAT(refusal(R"({"inputs": []})"), HasSubstr("expected a list of 1 to 256 tensors"));
  EXPECT_THAT(refusal(R"({"inputs": [3]})"), HasSubstr("inputs[0]: expected an object, found 3"));
  EXPECT_THAT(refusal(R"({"inputs": [{"name": "x"}]})"), HasSubstr("inputs[0]: the key 'datatype' is missing"));
  EXPECT_THAT(refusal(R"({"inputs": [{"name": "x", "datatype": "FLOAT"}]})"), HasSubstr("datatype: expected BOOL, INT64, FP32, BYTES"));
  EXPECT_THAT(refusal(R"({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1.5]}]})"), HasSubstr("shape: expected a list of whole numbers"));
  EXPECT_THAT(refusal(R"({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]})"), HasSubstr("the key 'data' is missing"));
  EXPECT_THAT(refusal(R"({"id": 3, "inputs": []})"), HasSubstr("id: expected text"));
  EXPECT_THAT(refusal("text", "application/json"), HasSubstr("expected JSON"));
}

TEST(TensorRequest, LyingBinarySizesAreRefused) {
  const auto binary = [](const std::string& json, const std::string& data, const std::string& header) {
    return refusal(json + data, "", {{kInferenceHeader, header}});
  };
  const std::string json = R"({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]})";
  EXPECT_THAT(binary(json, "abc", std::to_string(json.size())), HasSubstr("expected at most the 3 bytes that follow, found 4"));
  EXPECT_THAT(binary(json, "abcde", std::to_string(json.size())), HasSubstr("1 bytes follow that no binary_data_size claims"));
  EXPECT_THAT(binary(json, "", "100000"), HasSubstr("expected at most the body's"));
  EXPECT_THAT(binary(json, "", "-1"), HasSubstr("found '-1'"));
  EXPECT_THAT(binary("[1]", "", "3"), HasSubstr("the key 'inputs' is missing"));
}

TEST(InferAnswer, OutputsOfEitherFormBecomeTensorsAndTheRestIsBytes) {
  const auto tensors = [](const std::string& bytes, Headers headers = {}) { return parse_infer_answer({200, "", std::move(headers)}, bytes); };
  const auto typed = tensors(R"({"outputs": [{"name": "y", "datatype": "INT64", "shape": [2], "data": [1, 2]}]})").value();
  EXPECT_EQ(typed[0].type, DataType::kInt64);
  const std::string json = R"({"outputs": [{"name": "y", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}}]})";
  EXPECT_EQ(tensors(json + "ab", {{kInferenceHeader, std::to_string(json.size())}}).value()[0].data, "ab");
  const auto other = tensors("[1, 2]").value();
  EXPECT_EQ(other[0].type, DataType::kBytes);
  EXPECT_THAT(items_of(other[0]), ElementsAre("[1, 2]"));
  EXPECT_EQ(tensors(R"({"outputs": [3]})").error().code(), Code::kInternal);
}

TEST(TensorRequest, AnOutputThatDoesNotFitIsTheModelsFault) {
  const auto request = parse("[1]").value();
  EXPECT_EQ(make_tensor_answer(request, "m", {{"y", DataType::kFp32, {2}, "abc"}}).error().code(), Code::kInternal);
}

}  // namespace
}  // namespace penstock::handler
