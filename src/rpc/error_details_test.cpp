#include "rpc/error_details.h"

#include <gtest/gtest.h>
#include <grpcpp/support/status.h>

#include <optional>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace penstock::rpc {
namespace {

template <typename Detail>
std::optional<Detail> find(const google::rpc::Status& status) {
  for (const auto& any : status.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

TEST(ErrorDetails, SayTheReasonInOneWord) {
  const auto status = to_rpc_status(Error(Code::kFailedPrecondition, "too old"), Stage::kBegun);
  EXPECT_EQ(status.code(), 9);
  EXPECT_EQ(status.message(), "too old");
  ASSERT_TRUE(find<google::rpc::ErrorInfo>(status));
  EXPECT_EQ(find<google::rpc::ErrorInfo>(status)->reason(), "FAILED_PRECONDITION");
  EXPECT_EQ(find<google::rpc::ErrorInfo>(status)->domain(), "penstock");
}

TEST(ErrorDetails, SayWhenToAskAgainOnlyWhereThatHelpsAndIsSafe) {
  const auto retry = [](Code code, Stage stage) { return find<google::rpc::RetryInfo>(to_rpc_status(Error(code, "x"), stage)); };
  ASSERT_TRUE(retry(Code::kResourceExhausted, Stage::kRefused));
  EXPECT_EQ(retry(Code::kResourceExhausted, Stage::kRefused)->retry_delay().seconds(), 1);
  EXPECT_TRUE(retry(Code::kUnavailable, Stage::kRefused));
  EXPECT_FALSE(retry(Code::kNotFound, Stage::kRefused));
  EXPECT_FALSE(retry(Code::kInvalidArgument, Stage::kRefused));
  EXPECT_FALSE(retry(Code::kResourceExhausted, Stage::kBegun)) << "a text that was too long will be so again";
  EXPECT_FALSE(retry(Code::kUnavailable, Stage::kBegun)) << "half of the work may have been done";
}

TEST(ErrorDetails, TravelWithTheStatusOfACall) {
  const grpc::Status status = to_refusal(Error(Code::kResourceExhausted, "full"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "full");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), 8);
  EXPECT_TRUE(find<google::rpc::RetryInfo>(details));
}

}  // namespace
}  // namespace penstock::rpc
