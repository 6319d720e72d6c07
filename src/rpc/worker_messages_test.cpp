#include "rpc/worker_messages.h"

#include <gtest/gtest.h>

#include "worker.pb.h"

namespace penstock::rpc {
namespace {

TEST(WorkerMessages, ACodeThatGrpcDoesNotHaveIsInternal) {
  worker::v1::End end;
  end.set_message("why");
  for (const int code : {-1, 0, 17, 126, 1 << 30}) {
    end.set_code(code);
    EXPECT_EQ(to_error(end).code(), Code::kInternal) << code;
    EXPECT_EQ(to_error(end).message(), "why");
  }
  end.set_code(14);
  EXPECT_EQ(to_error(end).code(), Code::kUnavailable);
}

TEST(WorkerMessages, TokensThatAreKnownTravelWithTheRequest) {
  text::GenerationRequest request;
  request.prompt = "a";
  request.generated_ids = {3, 0, 7};
  EXPECT_EQ(from_proto(to_command(frontend::Payload(request)).generate()).generated_ids, request.generated_ids);
}

TEST(WorkerMessages, WhetherSpecialTokensAreTextTravelsWithTheRequest) {
  text::GenerationRequest request;
  EXPECT_TRUE(from_proto(to_command(frontend::Payload(request)).generate()).sampling.skip_special_tokens);
  request.sampling.skip_special_tokens = false;
  EXPECT_FALSE(from_proto(to_command(frontend::Payload(request)).generate()).sampling.skip_special_tokens);
}

}  // namespace
}  // namespace penstock::rpc
