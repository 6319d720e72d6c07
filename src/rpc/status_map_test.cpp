#include "rpc/status_map.h"

#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <string>

namespace penstock::rpc {
namespace {

TEST(StatusMap, EveryCodeOfOursComesBackAsItself) {
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    const Code code = static_cast<Code>(i);
    const Error back = to_error(to_status(Error(code, "why")));
    EXPECT_EQ(back.code(), code) << to_string(code);
    EXPECT_EQ(back.message(), "why");
  }
}

TEST(StatusMap, CodesKeepTheirNames) {
  EXPECT_EQ(to_status(Error(Code::kNotFound, "")).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(to_status(Error(Code::kUnavailable, "")).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(to_status(Error(Code::kResourceExhausted, "")).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(StatusMap, ACodeThatWeDoNotNameBecomesInternal) {
  EXPECT_EQ(to_error({grpc::StatusCode::OUT_OF_RANGE, "x"}).code(), Code::kInternal);
}

TEST(StatusMap, ALongMessageIsCutBetweenCharacters) {
  std::string message(4095, 'a');
  for (int i = 0; i < 8; ++i) message += "\xC3\xA9";
  const std::string sent = to_status(Error(Code::kInternal, message)).error_message();
  EXPECT_EQ(sent, std::string(4095, 'a') + " ...");
}

}  // namespace
}  // namespace penstock::rpc
