#include "handler/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::handler {
namespace {

using testing::HasSubstr;

TEST(Request, CountsAndSizesHaveLimits) {
  Request request{"id", {{"Accept", "*/*"}}, std::vector<Part>(kMaxParts)};
  EXPECT_EQ(check_request(request), std::nullopt);
  request.parts.emplace_back();
  EXPECT_THAT(check_request(request)->message(), HasSubstr("1025 inputs; expected at most 1024"));
  request.parts = {{std::string(kMaxNameBytes + 1, 'x'), "", ""}};
  EXPECT_THAT(check_request(request)->message(), HasSubstr("1025 bytes; expected at most 1024"));
  request.parts = {{"", std::string(kMaxNameBytes + 1, 'x'), ""}};
  EXPECT_EQ(check_request(request)->code(), Code::kInvalidArgument);
  request = {"id", Headers(kMaxHeaders + 1), {}};
  EXPECT_THAT(check_request(request)->message(), HasSubstr("257 headers"));
  request.headers = {{"a", std::string(kMaxHeaderBytes, 'x')}};
  EXPECT_THAT(check_request(request)->message(), HasSubstr("headers of 65537 bytes"));
}

TEST(Request, AnAnswersHeadThatCannotBeIsTheHandlersFault) {
  EXPECT_EQ(check_head({404, "text/plain", {}}), std::nullopt);
  EXPECT_EQ(check_head({199, "", {}})->code(), Code::kInternal);
  EXPECT_THAT(check_head({600, "", {}})->message(), HasSubstr("status 600"));
  EXPECT_THAT(check_head({200, std::string(2000, 'x'), {}})->message(), HasSubstr("content type has 2000 bytes"));
  EXPECT_THAT(check_head({200, "", Headers(300)})->message(), HasSubstr("300 headers"));
}

TEST(Request, AHeaderIsFoundWhateverItsCase) {
  const Headers headers = {{"Content-Type", "a"}, {"content-type", "b"}};
  EXPECT_EQ(*find_header(headers, "CONTENT-TYPE"), "a");
  EXPECT_EQ(find_header(headers, "content"), nullptr);
}

}  // namespace
}  // namespace penstock::handler
