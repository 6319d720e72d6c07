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

}  // namespace
}  // namespace penstock::rpc
