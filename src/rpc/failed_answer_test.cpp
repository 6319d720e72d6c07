#include "rpc/failed_answer.h"

#include <gtest/gtest.h>

namespace penstock::rpc {
namespace {

frontend::WorkerEvent event(std::optional<int> status, const std::string& bytes) {
  frontend::WorkerEvent event;
  if (status) event.head.emplace().status = *status;
  event.bytes = bytes;
  return event;
}

TEST(FailedAnswer, BecomesAnErrorWithItsBytesAsTheMessage) {
  FailedAnswer answer;
  EXPECT_TRUE(answer.take(event(404, "no such ")));
  EXPECT_TRUE(answer.take(event(std::nullopt, "picture")));
  EXPECT_EQ(answer.failure()->code(), Code::kNotFound);
  EXPECT_EQ(answer.failure()->message(), "no such picture");
  EXPECT_TRUE(answer.take(event(std::nullopt, std::string(10000, 'x'))));
  EXPECT_EQ(answer.failure()->message().size(), 4096u);
}

TEST(FailedAnswer, AGoodAnswerIsNone) {
  FailedAnswer answer;
  EXPECT_FALSE(answer.take(event(201, "made")));
  EXPECT_FALSE(answer.take(event(std::nullopt, "more")));
  EXPECT_FALSE(answer.failure());
}

TEST(FailedAnswer, WithoutBytesTheStatusIsTold) {
  FailedAnswer answer;
  EXPECT_TRUE(answer.take(event(507, "")));
  EXPECT_EQ(answer.failure()->message(), "the handler answered with status 507");
  EXPECT_EQ(answer.failure()->code(), Code::kInternal);
}

TEST(FailedAnswer, StatusesHaveTorchServesCodes) {
  EXPECT_EQ(code_of_http_status(400), Code::kInvalidArgument);
  EXPECT_EQ(code_of_http_status(413), Code::kResourceExhausted);
  EXPECT_EQ(code_of_http_status(503), Code::kUnavailable);
  EXPECT_EQ(code_of_http_status(418), Code::kFailedPrecondition);
  EXPECT_EQ(code_of_http_status(500), Code::kInternal);
}

}  // namespace
}  // namespace penstock::rpc
