// What every kind of Communicator promises, with ranks as threads: the local one, and c10d over loopback.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <exception>
#include <functional>
#include <thread>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/c10d_communicator.h"
#include "comm/flat_parts.h"
#include "comm/network_address.h"
#include "comm/spawn_ranks.h"

namespace penstock::comm {
namespace {

constexpr seconds kLong{60};

using Body = std::function<void(Communicator&)>;

// Like spawn_ranks, each thread with a c10d rank of its own.
void spawn_c10d_ranks(int size, const Body& body) {
  const int port = find_free_port();
  Mutex mutex;
  std::exception_ptr first_failure;
  std::vector<std::unique_ptr<Communicator>> ranks(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        C10dOptions options;
        options.connect_timeout = kLong;
        options.operation_timeout = kLong;
        ranks[static_cast<size_t>(rank)] = connect_c10d({rank, size, rank, size, "127.0.0.1", port}, options);
        body(*ranks[static_cast<size_t>(rank)]);
      } catch (...) {
        MutexLock lock(mutex);
        if (!first_failure) first_failure = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  while (!ranks.empty()) ranks.pop_back();  // rank 0, which holds the store, last
  if (first_failure) std::rethrow_exception(first_failure);
}

class CommunicatorContract : public testing::TestWithParam<const char*> {
 protected:
  static void run(int size, const Body& body) {
    if (std::string(GetParam()) == "local") {
      spawn_ranks(size, body);
    } else {
      spawn_c10d_ranks(size, body);
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, CommunicatorContract, testing::Values("local", "c10d"), [](const auto& info) { return std::string(info.param); });

Deadline soon() { return Deadline::after(kLong); }

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

// What `rank` brings: values whose sum depends on the order of the additions.
at::Tensor share_of(int rank, int64_t count, at::ScalarType dtype) {
  const at::Tensor x = at::arange(count, at::kDouble);
  return (at::sin(x * (rank + 1) + rank) * at::exp2((x + rank) % 24)).to(dtype);
}

// Added rank by rank, bfloat16 in float32.
at::Tensor sum_in_order(int size, int64_t count, at::ScalarType dtype) {
  const at::ScalarType wide = dtype == at::kBFloat16 ? at::kFloat : dtype;
  at::Tensor sum = share_of(0, count, dtype).to(wide);
  for (int rank = 1; rank < size; ++rank) sum = sum + share_of(rank, count, dtype).to(wide);
  return sum.to(dtype);
}

// Parts of all kinds: even, unequal, empty, one rank's alone.
std::vector<std::vector<int64_t>> some_parts(int64_t count, int size) {
  std::vector<std::vector<int64_t>> all = {even_parts(count, size)};
  std::vector<int64_t> rising = {0}, last = {0};
  for (int rank = 1; rank <= size; ++rank) {
    rising.push_back(count * rank * rank / (size * size));
    last.push_back(rank < size ? 0 : count);
  }
  all.push_back(rising);
  all.push_back(last);
  return all;
}

TEST_P(CommunicatorContract, SumsAreMadeInTheOrderOfTheRanksWhateverTheSize) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble, at::kLong}) {
    run(3, [&](Communicator& ranks) {
      for (const int64_t count : {1, 17, 4'096, 1'000'003}) {
        at::Tensor tensor = share_of(ranks.rank(), count, dtype);
        ranks.all_reduce(tensor, Reduce::kSum)->wait(soon());
        EXPECT_TRUE(at::equal(tensor, sum_in_order(3, count, dtype))) << count << " x " << c10::toString(dtype);
      }
    });
  }
}

TEST_P(CommunicatorContract, TheHalvesOfAnAllReduceGiveItsBits) {
  for (const int size : {1, 2, 3, 4}) {
    run(size, [&](Communicator& ranks) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kInt}) {
        for (const int64_t count : {0, 1, 1'000, 300'001}) {
          const at::Tensor whole = sum_in_order(size, count, dtype);
          for (const auto& offsets : some_parts(count, size)) {
            at::Tensor flat = share_of(ranks.rank(), count, dtype);
            ranks.reduce_scatter(flat, offsets)->wait(soon());
            const int64_t begin = offsets[static_cast<size_t>(ranks.rank())], end = offsets[static_cast<size_t>(ranks.rank()) + 1];
            EXPECT_TRUE(at::equal(flat.slice(0, begin, end), whole.slice(0, begin, end))) << size << " ranks, " << count << " x " << c10::toString(dtype);
            ranks.all_gather(flat, offsets)->wait(soon());
            EXPECT_TRUE(at::equal(flat, whole)) << size << " ranks, " << count << " x " << c10::toString(dtype);
          }
        }
      }
    });
  }
}

TEST_P(CommunicatorContract, ARoundedSumRemembersWhatItLost) {
  for (const int64_t count : {5, 300'001}) {
    run(3, [count](Communicator& ranks) {
      at::Tensor residual = at::zeros({count}), total = at::zeros({count}, at::kDouble);
      const at::Tensor exact = sum_in_order(3, count, at::kDouble);
      const at::Tensor mine = share_of(ranks.rank(), count, at::kFloat);
      constexpr int kSteps = 64;
      for (int step = 0; step < kSteps; ++step) {
        at::Tensor tensor = mine.clone();
        ranks.all_reduce_rounded(tensor, residual)->wait(soon());
        EXPECT_TRUE(at::equal(tensor, tensor.to(at::kBFloat16).to(at::kFloat)));
        at::Tensor of_rank_0 = tensor.clone();
        ranks.broadcast(of_rank_0, 0)->wait(soon());
        EXPECT_TRUE(at::equal(tensor, of_rank_0));
        if (step == 0) {
          EXPECT_FALSE(at::equal(tensor.to(at::kDouble), exact)) << "rounding shows in a single step";
        }
        total += tensor;
      }
      // What has not arrived yet is in the residuals: all that ever went in has come out or is remembered.
      at::Tensor remembered = residual.to(at::kDouble);
      ranks.all_reduce(remembered, Reduce::kSum)->wait(soon());
      const at::Tensor largest = exact.abs().max() * 1e-3;
      EXPECT_LT(((total + remembered) / kSteps - exact).abs().max().item<double>(), largest.item<double>() * 1e-2);
    });
  }
}

TEST_P(CommunicatorContract, ManyHalvesMayBeUnderWayAtOnce) {
  run(3, [](Communicator& ranks) {
    constexpr int64_t kCount = 5'000;
    const std::vector<int64_t> offsets = {0, 10, 4'000, kCount};
    std::vector<at::Tensor> flats;
    for (int i = 0; i < 20; ++i) flats.push_back(share_of(ranks.rank(), kCount, at::kFloat) * (i + 1));
    std::vector<WorkPtr> works;
    for (at::Tensor& flat : flats) works.push_back(ranks.reduce_scatter(flat, offsets));
    for (const WorkPtr& work : works) work->wait(soon());
    works.clear();
    for (at::Tensor& flat : flats) works.push_back(ranks.all_gather(flat, offsets));
    for (const WorkPtr& work : works) work->wait(soon());
    for (int i = 0; i < 20; ++i) {
      at::Tensor expected = share_of(0, kCount, at::kFloat) * (i + 1);
      for (int rank = 1; rank < 3; ++rank) expected = expected + share_of(rank, kCount, at::kFloat) * (i + 1);
      EXPECT_TRUE(at::equal(flats[static_cast<size_t>(i)], expected)) << i;
    }
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

// The Error that `action` throws.
Error failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& failed) {
    return failed;
  }
  ADD_FAILURE() << "expected an Error";
  return {Code::kInternal, ""};
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

TEST_P(CommunicatorContract, HalvesThatARankDoesNotCallEndAtTheirDeadline) {
  for (const bool gather : {false, true}) {
    run(2, [gather](Communicator& ranks) {
      at::Tensor flat = at::ones({1'000});
      const std::vector<int64_t> offsets = {0, 500, 1'000};
      if (ranks.rank() == 1) {
        EXPECT_THROW(ranks.recv(flat, 0, 0)->wait(soon()), Error) << "the group died with rank 0's deadline";
        return;
      }
      const WorkPtr work = gather ? ranks.all_gather(flat, offsets) : ranks.reduce_scatter(flat, offsets);
      const Error failed = failure_of([&] { work->wait(Deadline::after(milliseconds(100))); });
      EXPECT_EQ(failed.code(), Code::kDeadlineExceeded) << failed.message();
      EXPECT_NE(failed.message().find(gather ? "all_gather of " : "reduce_scatter"), std::string::npos) << failed.message();
      EXPECT_NE(failed.message().find("rank 1"), std::string::npos) << failed.message();
    });
  }
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

TEST_P(CommunicatorContract, SumsInTheBufferThatItGaveOut) {
  for (const int size : {1, 2, 3, 4}) {
    run(size, [&](Communicator& ranks) {
      constexpr int64_t kElements = 100'003;
      const at::Tensor memory = ranks.reduction_buffer(kElements * 4 + 64, Deadline::after(kLong));
      ASSERT_GE(memory.numel(), kElements * 4);
      EXPECT_EQ(memory.count_nonzero().item<int64_t>(), 0);
      at::Tensor whole = memory.narrow(0, 0, kElements * 4).view(at::kFloat);
      for (int round = 0; round < 20; ++round) {
        whole.copy_(at::arange(kElements, at::kFloat) * (ranks.rank() + 1) + round);
        std::vector<WorkPtr> works;
        std::vector<at::Tensor> pieces;
        for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {1, 15}, {16, 0}, {16, 17}, {64, 50'001}, {50'065, kElements - 50'065}}) {
          pieces.push_back(whole.narrow(0, first, count));
          works.push_back(ranks.all_reduce(pieces.back(), Reduce::kSum));
        }
        for (const auto& work : works) work->wait(Deadline::after(kLong));
        const int sum = size * (size + 1) / 2;
        const at::Tensor expected = at::arange(kElements, at::kFloat) * sum + round * size;
        at::Tensor got = whole.clone();
        got.narrow(0, 33, 31).copy_(expected.narrow(0, 33, 31));  // the gap that no piece covers
        EXPECT_TRUE(at::allclose(got, expected, 1e-6)) << size << " ranks, round " << round;
      }
    });
  }
}

TEST_P(CommunicatorContract, TheHalvesWorkInTheBufferThatItGaveOut) {
  run(3, [](Communicator& ranks) {
    constexpr int64_t kElements = 100'003;
    const at::Tensor memory = ranks.reduction_buffer(2 * kElements * 4, soon());
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const auto& offsets : some_parts(kElements, 3)) {
        at::Tensor flat = memory.view(dtype).narrow(0, 7, kElements);
        flat.copy_(share_of(ranks.rank(), kElements, dtype));
        ranks.reduce_scatter(flat, offsets)->wait(soon());
        ranks.all_gather(flat, offsets)->wait(soon());
        EXPECT_TRUE(at::equal(flat, sum_in_order(3, kElements, dtype))) << c10::toString(dtype);
        flat.fill_(ranks.rank());  // at once: nobody reads here any more
        ranks.all_reduce(flat, Reduce::kMax)->wait(soon());
        EXPECT_TRUE((flat == 2).all().item<bool>()) << c10::toString(dtype);
      }
    }
  });
}

TEST_P(CommunicatorContract, ASumInItsBufferEndsAtTheDeadlineWhenARankDoesNotCome) {
  run(2, [&](Communicator& ranks) {
    const at::Tensor memory = ranks.reduction_buffer(4096, Deadline::after(kLong));
    at::Tensor mine = memory.narrow(0, 0, 4096).view(at::kFloat);
    const WorkPtr never = ranks.rank() == 0 ? ranks.all_reduce(mine, Reduce::kSum) : nullptr;
    if (!never) return;
    try {
      never->wait(Deadline::after(milliseconds(200)));
      ADD_FAILURE() << "it waited for nobody";
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == Code::kDeadlineExceeded || e.code() == Code::kUnavailable) << e.message();
      EXPECT_NE(e.message().find("rank"), std::string::npos) << e.message();
    }
    EXPECT_THROW((void)ranks.all_reduce(mine, Reduce::kSum)->wait(Deadline::after(kLong)), Error) << "the group is dead";
  });
}

}  // namespace
}  // namespace penstock::comm
