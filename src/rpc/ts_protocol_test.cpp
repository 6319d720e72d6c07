#include "rpc/ts_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::rpc {
namespace {

using testing::HasSubstr;

std::string number(int32_t value) {
  const auto bits = static_cast<uint32_t>(value);
  return {static_cast<char>(bits >> 24), static_cast<char>(bits >> 16), static_cast<char>(bits >> 8), static_cast<char>(bits)};
}
std::string text(const std::string& value) { return number(static_cast<int32_t>(value.size())) + value; }

Result<TsResponse> decode(std::string bytes) {
  return read_response([&bytes](size_t count) -> Result<std::string> {
    if (bytes.size() < count) return Error(Code::kUnavailable, "the connection has ended");
    std::string taken = bytes.substr(0, count);
    bytes.erase(0, count);
    return taken;
  });
}

TEST(TsProtocol, LoadSaysAllThatTheWorkerNeeds) {
  EXPECT_EQ(encode_load({"m", "/models/m", 4, "service.py", -1, "", true}),
            "L" + text("m") + text("/models/m") + number(4) + text("service.py") + number(-1) + text("") + std::string(1, '\1'));
}

TEST(TsProtocol, PredictHasEveryRequestWithHeadersAndParts) {
  const handler::Request first{"x", {{"A", "b"}}, {{"data", "text/plain", "x"}}}, second{"x", {}, {}};
  EXPECT_EQ(encode_predict({{"id-1", &first}, {"id-2", &second}}), "I" + text("id-1") + text("A") + text("b") + number(-1) + text("data") + text("text/plain") +
                                                   text("x") + number(-1) + text("id-2") + number(-1) + number(-1) + number(-1));
}

TEST(TsProtocol, WhatTheWorkerCannotDecodeIsRefused) {
  EXPECT_EQ(check_ts_request({"id", {{"A", "\u00e4"}}, {{"\u00e4", "text/plain", "\xFF: bytes are free"}}}), std::nullopt);
  EXPECT_THAT(check_ts_request({"id", {{"A", "b\xE4"}}, {}})->message(), HasSubstr("header 'A' is not UTF-8"));
  EXPECT_THAT(check_ts_request({"id", {{"A\xE4", "b"}}, {}})->message(), HasSubstr("a header's name is not UTF-8"));
  EXPECT_THAT(check_ts_request({"id", {}, {{"a\xE4", "", ""}}})->message(), HasSubstr("an input's name is not UTF-8"));
  const auto bad = check_ts_request({"id", {}, {{"a", "text/\xE4", ""}}});
  EXPECT_EQ(bad->code(), Code::kInvalidArgument);
  EXPECT_THAT(bad->message(), HasSubstr("the content type of input 'a' is not UTF-8"));
}

TEST(TsProtocol, AResponseIsReadWithItsAnswers) {
  const auto response = decode(number(200) + text("ok") + text("id-1") + text("text/plain") + number(201) + text("Created") + number(2) +
                               text("k") + text("v") + text("ts_stream_next") + text("true") + text("body") +                    //
                               text("id-2") + text("") + number(0) + text("") + number(0) + text("") + number(-1)).value();
  EXPECT_EQ(response.code, 200);
  ASSERT_EQ(response.answers.size(), 2u);
  EXPECT_EQ(response.answers[0].head.status, 201);
  EXPECT_EQ(response.answers[0].head.headers[0].second, "v");
  EXPECT_EQ(response.answers[0].bytes, "body");
  EXPECT_FALSE(response.answers[0].last);
  EXPECT_EQ(response.answers[1].head.status, 200);
  EXPECT_TRUE(response.answers[1].last);
  EXPECT_EQ(decode(number(507) + text("no memory") + number(-1)).value().message, "no memory");
}

TEST(TsProtocol, GarbageIsRefused) {
  EXPECT_THAT(decode(number(200) + number(-5)).error().message(), HasSubstr("a length of -5"));
  EXPECT_THAT(decode(number(200) + number(0x7FFFFFFF)).error().message(), HasSubstr("a length of 2147483647"));
  EXPECT_THAT(decode(number(200) + text("") + text("id") + text("") + number(0) + text("") + number(100000)).error().message(),
              HasSubstr("100000 headers"));
  EXPECT_EQ(decode("HTTP").error().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace penstock::rpc
