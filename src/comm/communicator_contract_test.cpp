// What every kind of Communicator promises: messages, groups, errors.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "comm/contract_ranks_test.h"

namespace penstock::comm {
namespace {

class CommunicatorContract : public RanksOfAnyKind {};
INSTANTIATE_TEST_SUITE_P(Kinds, CommunicatorContract, all_kinds(), [](const auto& info) { return std::string(info.param); });

TEST_P(CommunicatorContract, MessagesMatchByPeerAndTagInTheOrderSent) {
  run(2, [](Communicator& comm) {
    at::Tensor first = at::full({3}, 1.0F);
    at::Tensor second = at::full({3}, 2.0F);
    at::Tensor other_tag = at::full({1 << 18}, 3.0F);
    if (comm.rank() == 0) {
      std::vector<WorkPtr> sends;
      sends.push_back(comm.send(other_tag, 1, 8));
      sends.push_back(comm.send(first, 1, 7));
      sends.push_back(comm.send(second, 1, 7));
      for (const WorkPtr& send : sends) send->wait(soon());
      return;
    }
    at::Tensor a = at::zeros({3});
    at::Tensor b = at::zeros({3});
    at::Tensor c = at::zeros({1 << 18});
    const WorkPtr recv_a = comm.recv(a, 0, 7);
    const WorkPtr recv_b = comm.recv(b, 0, 7);
    const WorkPtr recv_c = comm.recv(c, 0, 8);
    recv_c->wait(soon());
    recv_b->wait(soon());
    recv_a->wait(soon());
    EXPECT_TRUE(at::equal(a, first) && at::equal(b, second) && at::equal(c, other_tag));
  });
}

TEST_P(CommunicatorContract, BothSidesMaySendBeforeEitherReceives) {
  run(2, [](Communicator& comm) {
    const int peer = 1 - comm.rank();
    const at::Tensor mine = at::full({1 << 20}, comm.rank(), at::kFloat);
    at::Tensor theirs = at::zeros({1 << 20});
    const WorkPtr send = comm.send(mine, peer, 0);
    comm.recv(theirs, peer, 0)->wait(soon());
    send->wait(soon());
    EXPECT_EQ(theirs[12345].item<float>(), static_cast<float>(peer));
  });
}

TEST_P(CommunicatorContract, EveryDtypeTravelsAndIsSummed) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong, at::kInt, at::kByte}) {
    run(2, [dtype](Communicator& comm) {
      at::Tensor tensor = at::arange(6, dtype).reshape({2, 3});
      comm.all_reduce(tensor, Reduce::kSum)->wait(soon());
      EXPECT_TRUE(at::equal(tensor, (at::arange(6, dtype) * 2).reshape({2, 3}))) << c10::toString(dtype);
      if (comm.rank() == 0) comm.send(tensor, 1, 1)->wait(soon());
      at::Tensor received = at::zeros({2, 3}, dtype);
      if (comm.rank() == 1) comm.recv(received, 0, 1)->wait(soon());
      comm.broadcast(received, 1)->wait(soon());
      EXPECT_TRUE(at::equal(received, tensor)) << c10::toString(dtype);
    });
  }
}

TEST_P(CommunicatorContract, AScalarAndAnEmptyTensorTravel) {
  run(2, [](Communicator& comm) {
    at::Tensor scalar = at::scalar_tensor(comm.rank() + 1, at::kFloat);
    at::Tensor empty = at::empty({0, 4});
    comm.all_reduce(scalar, Reduce::kSum)->wait(soon());
    comm.all_reduce(empty, Reduce::kSum)->wait(soon());
    comm.broadcast(empty, 0)->wait(soon());
    EXPECT_EQ(scalar.item<float>(), 3.0F);
    if (comm.rank() == 0) comm.send(empty, 1, 0)->wait(soon());
    if (comm.rank() == 1) comm.recv(empty, 0, 0)->wait(soon());
  });
}

TEST_P(CommunicatorContract, ReducingGivesEveryRankTheSameBits) {
  run(3, [](Communicator& comm) {
    at::Tensor tensor = at::sin(at::arange(10'007, at::kFloat) * (comm.rank() + 1)) * 1e3;
    at::Tensor narrow = tensor.to(at::kBFloat16);
    at::Tensor largest = tensor.clone();
    comm.all_reduce(tensor, Reduce::kSum)->wait(soon());
    comm.all_reduce(narrow, Reduce::kSum)->wait(soon());
    comm.all_reduce(largest, Reduce::kMax)->wait(soon());
    for (at::Tensor result : {tensor, narrow, largest}) {
      at::Tensor of_rank_0 = result.clone();
      comm.broadcast(of_rank_0, 0)->wait(soon());
      EXPECT_TRUE(at::equal(result, of_rank_0));
    }
    EXPECT_TRUE(at::allclose(narrow.to(at::kFloat), tensor, 0.02, 20.0));
    EXPECT_TRUE((largest.abs() <= 1e3).all().item<bool>());
  });
}

TEST_P(CommunicatorContract, DoneTurnsTrueWithoutAWaitAndKeepsTheMessage) {
  run(2, [](Communicator& comm) {
    at::Tensor tensor = at::full({5}, 9.0F);
    if (comm.rank() == 0) {
      comm.barrier()->wait(soon());
      comm.send(tensor, 1, 3)->wait(soon());
      return;
    }
    at::Tensor received = at::zeros({5});
    const WorkPtr recv = comm.recv(received, 0, 3);
    EXPECT_FALSE(recv->done()) << "nothing has been sent yet";
    comm.barrier()->wait(soon());
    const Deadline deadline = soon();
    while (!recv->done() && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
    recv->wait(Deadline::after(milliseconds(0)));
    EXPECT_TRUE(at::equal(received, tensor));
  });
}

TEST_P(CommunicatorContract, AWorkThatIsNeverWaitedForCanBeDropped) {
  run(2, [](Communicator& comm) {
    at::Tensor tensor = at::zeros({5});
    {
      const WorkPtr polled = comm.recv(tensor, 1 - comm.rank(), 3);
      EXPECT_FALSE(polled->done());
    }
    comm.barrier()->wait(soon());
  });
}

TEST_P(CommunicatorContract, SplitGroupsCountTheirOwnRanksAndDoNotMixMessages) {
  run(4, [](Communicator& world) {
    const bool odd = world.rank() % 2 == 1;
    const auto evens = world.split(std::vector<int>{0, 2}, "even", soon());
    const auto odds = world.split(std::vector<int>{1, 3}, "odd", soon());
    const auto alone = world.split(std::vector<int>{2}, "alone", soon());
    ASSERT_EQ(evens == nullptr, odd);
    ASSERT_EQ(odds == nullptr, !odd);
    ASSERT_EQ(alone != nullptr, world.rank() == 2);
    Communicator& mine = odd ? *odds : *evens;
    EXPECT_EQ(mine.name(), odd ? "odd" : "even");
    EXPECT_EQ(mine.size(), 2);
    EXPECT_EQ(mine.rank(), world.rank() / 2);

    at::Tensor sum = at::full({4}, world.rank(), at::kLong);
    mine.all_reduce(sum, Reduce::kSum)->wait(soon());
    EXPECT_EQ(sum[0].item<int64_t>(), odd ? 4 : 2);
    if (alone) alone->all_reduce(sum, Reduce::kSum)->wait(soon());
    if (mine.rank() == 0) mine.send(sum, 1, 5)->wait(soon());
    if (mine.rank() == 1) mine.recv(sum, 0, 5)->wait(soon());
    world.barrier()->wait(soon());
  });
}

TEST_P(CommunicatorContract, AGroupOfOneNeedsNobody) {
  run(1, [](Communicator& comm) {
    at::Tensor tensor = at::ones({4}, at::kBFloat16);
    comm.all_reduce(tensor, Reduce::kSum)->wait(soon());
    comm.broadcast(tensor, 0)->wait(soon());
    comm.barrier()->wait(soon());
    EXPECT_TRUE(at::equal(tensor, at::ones({4}, at::kBFloat16)));
  });
}

TEST_P(CommunicatorContract, AReceiveThatNobodySendsEndsAtItsDeadlineSayingWhatItWaitedFor) {
  run(2, [](Communicator& comm) {
    if (comm.rank() == 1) {
      comm.barrier()->wait(soon());
      at::Tensor end = at::zeros({1});
      EXPECT_THROW(comm.recv(end, 0, 0)->wait(soon()), Error) << "the group died with rank 0's deadline";
      return;
    }
    comm.barrier()->wait(soon());
    at::Tensor tensor = at::zeros({6});
    const WorkPtr recv = comm.recv(tensor, 1, 42);
    const Error failed = failure_of([&] { recv->wait(Deadline::after(milliseconds(100))); });
    EXPECT_EQ(failed.code(), Code::kDeadlineExceeded) << failed.message();
    for (const char* part : {"recv of ", "Float", "from rank 1", "tag 42", "group 'world'", "rank 0 of 2"}) {
      EXPECT_NE(failed.message().find(part), std::string::npos) << failed.message();
    }
    EXPECT_TRUE(recv->done()) << "it has failed";
    const Error later = failure_of([&] { (void)comm.barrier(); });
    EXPECT_EQ(later.message(), failed.message()) << "the first error sticks";
  });
}

TEST_P(CommunicatorContract, ACollectiveThatARankDoesNotCallEndsAtItsDeadline) {
  run(2, [](Communicator& comm) {
    comm.barrier()->wait(soon());
    if (comm.rank() == 1) {
      at::Tensor end = at::zeros({1});
      EXPECT_THROW(comm.recv(end, 0, 0)->wait(soon()), Error);
      return;
    }
    at::Tensor tensor = at::ones({6});
    const Error failed = failure_of([&] { comm.all_reduce(tensor, Reduce::kSum)->wait(Deadline::after(milliseconds(100))); });
    EXPECT_EQ(failed.code(), Code::kDeadlineExceeded) << failed.message();
    EXPECT_NE(failed.message().find("all_reduce(sum) of "), std::string::npos) << failed.message();
  });
}

TEST_P(CommunicatorContract, MisuseIsABug) {
  run(2, [](Communicator& comm) {
    at::Tensor strided = at::zeros({4, 4}).t();
    at::Tensor half = at::zeros({4}, at::kHalf);
    at::Tensor fine = at::zeros({4});
    EXPECT_THROW((void)comm.send(strided, 1 - comm.rank(), 0), Bug);
    EXPECT_THROW((void)comm.all_reduce(half, Reduce::kSum), Bug);
    EXPECT_THROW((void)comm.send(fine, comm.rank(), 0), Bug);
    EXPECT_THROW((void)comm.recv(fine, 2, 0), Bug);
    EXPECT_THROW((void)comm.recv(fine, 1 - comm.rank(), -1), Bug);
    EXPECT_THROW((void)comm.split(std::vector<int>{1, 0}, "x", soon()), Bug);
    for (const std::vector<int64_t>& offsets : {std::vector<int64_t>{0, 4}, {0, 2, 5}, {1, 2, 4}, {0, 5, 4}}) {
      EXPECT_THROW((void)comm.reduce_scatter(fine, offsets), Bug);
      EXPECT_THROW((void)comm.all_gather(fine, offsets), Bug);
    }
  });
}

}  // namespace
}  // namespace penstock::comm
