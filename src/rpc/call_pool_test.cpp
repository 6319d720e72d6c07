#include "rpc/call_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>

namespace penstock::rpc {
namespace {

using testing::HasSubstr;

// A pool of one thread, which is busy until release().
class CallPoolTest : public testing::Test {
 protected:
  CallPoolTest() {
    std::promise<void> begun;
    pool_->run([this, &begun] {
      begun.set_value();
      go_on_.get_future().wait();
    }, [](const Error& why) { ADD_FAILURE() << why.message(); });
    begun.get_future().wait();
  }
  ~CallPoolTest() override { release(); }
  void release() {
    if (!std::exchange(released_, true)) go_on_.set_value();
  }
  void run() {
    pool_->run([this] { ++num_run_; }, [this](const Error& why) { refused_.push_back(why); });
  }

  std::atomic<int> num_run_{0};
  std::vector<Error> refused_;
  std::promise<void> go_on_;
  bool released_ = false;
  std::unique_ptr<CallPool> pool_ = std::make_unique<CallPool>("calls of a test", 1, 2);
};

TEST_F(CallPoolTest, WhatWaitsRunsInItsTurn) {
  run();
  run();
  release();
  pool_->run([this] { ++num_run_; }, [](const Error&) {});
  const Deadline deadline = Deadline::after(seconds(20));
  while (num_run_ < 2 && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_GE(num_run_, 2);
  EXPECT_TRUE(refused_.empty());
}

TEST_F(CallPoolTest, OneTooManyIsRefusedAtOnce) {
  for (int i = 0; i < 3; ++i) run();
  ASSERT_EQ(refused_.size(), 1u);
  EXPECT_EQ(refused_[0].code(), Code::kResourceExhausted);
  EXPECT_THAT(refused_[0].message(), HasSubstr("2 calls of a test wait already"));
}

TEST(CallPool, CallsThatHoldTooMuchWhileTheyWaitAreRefused) {
  std::promise<void> begun, go_on;
  std::vector<Error> refused;
  std::atomic<int> num_run{0};
  {
    CallPool pool("calls of a test", 1, 100, 1000);
    const auto add = [&](size_t bytes) { pool.run([&] { ++num_run; }, [&](const Error& why) { refused.push_back(why); }, bytes); };
    pool.run([&] {
      begun.set_value();
      go_on.get_future().wait();
    }, [](const Error& why) { ADD_FAILURE() << why.message(); }, 5000);  // alone, one call may hold any number
    begun.get_future().wait();
    add(600);
    add(600);
    add(400);
    ASSERT_EQ(refused.size(), 1u);
    EXPECT_EQ(refused[0].code(), Code::kResourceExhausted);
    EXPECT_THAT(refused[0].message(), HasSubstr("calls of a test of 600 bytes wait already"));
    go_on.set_value();
    const Deadline deadline = Deadline::after(seconds(20));
    while (num_run < 2 && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
    add(1000);  // there is room again
    while (num_run < 3 && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(num_run, 3);
  EXPECT_EQ(refused.size(), 1u);
}

TEST_F(CallPoolTest, WhatWaitsIsRefusedAtTheCloseThoughTheThreadIsBusy) {
  run();
  run();
  pool_->close();
  run();
  ASSERT_EQ(refused_.size(), 3u) << "two that waited, one that came later";
  for (const Error& why : refused_) EXPECT_EQ(why.code(), Code::kUnavailable);
  release();
  pool_.reset();
  EXPECT_EQ(num_run_, 0);
}

}  // namespace
}  // namespace penstock::rpc
