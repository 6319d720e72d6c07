#include "rpc/outbound_queue.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::rpc {
namespace {

TEST(OutboundQueue, KeepsOneWriteInFlightAndTheOrder) {
  OutboundQueue<std::string> queue(8);
  ASSERT_EQ(queue.push("a"), Next::kWrite);
  EXPECT_EQ(queue.push("b"), Next::kNothing) << "a is still in flight";
  EXPECT_EQ(queue.current(), "a");
  ASSERT_EQ(queue.written(true), Next::kWrite);
  EXPECT_EQ(queue.current(), "b");
  EXPECT_EQ(queue.written(true), Next::kNothing);
}

TEST(OutboundQueue, FinishesOnceAndAfterTheLastMessage) {
  OutboundQueue<std::string> queue(8);
  ASSERT_EQ(queue.push("a"), Next::kWrite);
  ASSERT_EQ(queue.push("b"), Next::kNothing);
  EXPECT_EQ(queue.close(std::nullopt), Next::kNothing);
  ASSERT_EQ(queue.written(true), Next::kWrite);
  ASSERT_EQ(queue.written(true), Next::kFinish);
  EXPECT_FALSE(queue.outcome().has_value());
  EXPECT_EQ(queue.close(Error(Code::kInternal, "late")), Next::kNothing);
  EXPECT_EQ(queue.push("late"), Next::kNothing);
}

TEST(OutboundQueue, CutsOffAReaderThatLagsBeyondTheLimit) {
  OutboundQueue<std::string> queue(2);
  ASSERT_EQ(queue.push("in flight"), Next::kWrite);
  ASSERT_EQ(queue.push("1"), Next::kNothing);
  ASSERT_EQ(queue.push("2"), Next::kNothing);
  EXPECT_EQ(queue.push("3"), Next::kNothing) << "a write is in flight: finish after it";
  EXPECT_TRUE(queue.closed());
  ASSERT_EQ(queue.written(true), Next::kFinish);
  EXPECT_EQ(queue.outcome()->code(), Code::kResourceExhausted);
}

TEST(OutboundQueue, CutsOffAReaderForWhomTooManyBytesWait) {
  OutboundQueue<std::string> queue(8, 100);
  ASSERT_EQ(queue.push("in flight", 1000), Next::kWrite);
  ASSERT_EQ(queue.push("1", 100), Next::kNothing);
  ASSERT_EQ(queue.written(true), Next::kWrite);
  ASSERT_EQ(queue.push("2", 101), Next::kNothing) << "what was taken waits no more";
  EXPECT_FALSE(queue.closed());
  EXPECT_EQ(queue.push("3", 1), Next::kNothing);
  EXPECT_TRUE(queue.closed());
  ASSERT_EQ(queue.written(true), Next::kFinish);
  EXPECT_EQ(queue.outcome()->code(), Code::kResourceExhausted);
}

TEST(OutboundQueue, AbortDropsWhatWaitsAlsoAfterClose) {
  OutboundQueue<std::string> queue(8);
  ASSERT_EQ(queue.push("a"), Next::kWrite);
  ASSERT_EQ(queue.push("b"), Next::kNothing);
  ASSERT_EQ(queue.close(std::nullopt), Next::kNothing);
  EXPECT_EQ(queue.abort(Error(Code::kCancelled, "gone")), Next::kNothing);
  EXPECT_EQ(queue.written(true), Next::kFinish);
}

TEST(OutboundQueue, AFailedWriteEndsTheStream) {
  OutboundQueue<std::string> queue(8);
  ASSERT_EQ(queue.push("a"), Next::kWrite);
  ASSERT_EQ(queue.push("b"), Next::kNothing);
  ASSERT_EQ(queue.written(false), Next::kFinish);
  EXPECT_EQ(queue.outcome()->code(), Code::kCancelled);
}

}  // namespace
}  // namespace penstock::rpc
