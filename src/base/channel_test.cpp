#include "base/channel.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace penstock {
namespace {

TEST(Channel, HandsOutInOrder) {
  Channel<int> channel(4);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(channel.try_put(int(i)), Put::kDone);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(channel.try_take(), i);
  EXPECT_EQ(channel.try_take(), std::nullopt);
}

TEST(Channel, AnswersFullAndLeavesTheItemAlone) {
  Channel<std::string> channel(1);
  ASSERT_EQ(channel.try_put("first"), Put::kDone);
  std::string second = "second";
  EXPECT_EQ(channel.try_put(std::move(second)), Put::kFull);
  EXPECT_EQ(second, "second");
}

TEST(Channel, CloseWakesAWaitingProducerAndAWaitingConsumer) {
  Channel<int> full(1), empty(1);
  ASSERT_EQ(full.try_put(1), Put::kDone);
  std::thread producer([&] { EXPECT_EQ(full.put(2, Deadline::never()), Put::kClosed); });
  std::thread consumer([&] { EXPECT_EQ(empty.take(Deadline::never()), std::nullopt); });
  full.close();
  empty.close();
  producer.join();
  consumer.join();
  EXPECT_EQ(full.try_take(), 1) << "what was put before close() is still handed out";
}

TEST(Channel, LosesNothingBetweenManyThreads) {
  Channel<int> channel(3);
  std::vector<std::thread> producers;
  for (int p = 0; p < 4; ++p) {
    producers.emplace_back([&] {
      for (int i = 1; i <= 100; ++i) ASSERT_EQ(channel.put(int(i), Deadline::after(seconds(10))), Put::kDone);
    });
  }
  int sum = 0;
  for (int i = 0; i < 400; ++i) sum += channel.take(Deadline::after(seconds(10))).value();
  for (auto& p : producers) p.join();
  EXPECT_EQ(sum, 4 * 5050);
}

}  // namespace
}  // namespace penstock
