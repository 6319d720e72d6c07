#include "comm/recorded_communicator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <thread>

#include "comm/local_communicator.h"

namespace penstock::comm {
namespace {

Deadline soon() { return Deadline::after(seconds(60)); }

TEST(RecordedCommunicator, WritesDownWhatWasPostedAndWhatHasEnded) {
  const auto plain = make_local_group(2);
  FlightRecorder recorder;
  const auto rank0 = make_recorded(*plain[0], recorder);
  at::Tensor there = at::ones({4}), here = at::zeros({4});
  const WorkPtr send = rank0->send(there, 1, 7);
  const WorkPtr recv = plain[1]->recv(here, 0, 7);
  send->wait(soon());
  recv->wait(soon());
  next_is_bucket(*rank0, 3);
  at::Tensor sum = at::ones({8});
  const WorkPtr reduce = rank0->all_reduce(sum, Reduce::kSum);

  const auto before = recorder.snapshot();
  ASSERT_EQ(before.entries.size(), 2u);
  EXPECT_EQ(before.groups.at(0).name, "world");
  EXPECT_EQ(before.groups.at(0).ranks, (std::vector<int>{0, 1}));
  const FlightEntry& message = before.entries[0];
  EXPECT_EQ(message.name.view(), "send");
  EXPECT_EQ(message.peer, 1);
  EXPECT_EQ(message.tag, 7);
  EXPECT_EQ(message.bytes, 16);
  EXPECT_GE(message.finished_us, message.waited_us);
  EXPECT_GT(message.waited_us, 0);
  const FlightEntry& bucket = before.entries[1];
  EXPECT_EQ(bucket.name.view(), "all_reduce(sum)");
  EXPECT_EQ(bucket.bucket, 3);
  EXPECT_EQ(bucket.sequence, 1);
  EXPECT_EQ(bucket.waited_us, 0) << "posted, but nobody waits";
  EXPECT_EQ(bucket.finished_us, 0);

  at::Tensor other = at::ones({8});
  plain[1]->all_reduce(other, Reduce::kSum)->wait(soon());
  reduce->wait(soon());
  EXPECT_TRUE(at::equal(sum, at::full({8}, 2.0)));
  EXPECT_GT(recorder.snapshot().entries[1].finished_us, 0);
  const WorkPtr next = rank0->barrier();
  EXPECT_EQ(recorder.snapshot().entries[2].bucket, -1) << "the number was for one collective";
  EXPECT_EQ(recorder.snapshot().entries[2].sequence, 2);
  plain[1]->barrier()->wait(soon());
  next->wait(soon());
}

TEST(RecordedCommunicator, AWaitThatFailsStaysOpen) {
  const auto plain = make_local_group(2);
  FlightRecorder recorder;
  const auto rank0 = make_recorded(*plain[0], recorder);
  const WorkPtr barrier = rank0->barrier();
  EXPECT_THROW(barrier->wait(Deadline::after(milliseconds(10))), Error);
  const auto entry = recorder.snapshot().entries.at(0);
  EXPECT_GT(entry.waited_us, 0);
  EXPECT_EQ(entry.finished_us, 0);
}

TEST(RecordedCommunicator, GroupsKnowTheirRanksInTheWorld) {
  const auto plain = make_local_group(4);
  FlightRecorder recorder;
  std::vector<std::thread> others;
  const std::vector<int> odd = {1, 3}, second = {1};
  for (const size_t rank : {0u, 1u, 2u}) {
    others.emplace_back([&, rank] {
      FlightRecorder another;
      const auto group = make_recorded(*plain[rank], another)->split(odd, "odd", soon());
      EXPECT_EQ(group != nullptr, rank == 1);
      if (!group) return;
      EXPECT_EQ(group->split(second, "second", soon()), nullptr);
    });
  }
  const auto world = make_recorded(*plain[3], recorder);
  const auto group = world->split(odd, "odd", soon());
  const auto last = group->split(second, "second", soon());
  for (auto& other : others) other.join();
  ASSERT_TRUE(last);
  EXPECT_EQ(recorder_of(*last), &recorder);
  EXPECT_EQ(recorder_of(*plain[3]), nullptr);
  const auto groups = recorder.snapshot().groups;
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[1].ranks, (std::vector<int>{1, 3}));
  EXPECT_EQ(groups[2].ranks, (std::vector<int>{3}));
}

}  // namespace
}  // namespace penstock::comm
