// What every kind of Communicator promises of reductions, gathers and broadcasts.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "comm/contract_ranks_test.h"
#include "comm/flat_parts.h"

namespace penstock::comm {
namespace {

class CollectivesContract : public RanksOfAnyKind {};
INSTANTIATE_TEST_SUITE_P(Kinds, CollectivesContract, all_kinds(), [](const auto& info) { return std::string(info.param); });

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

TEST_P(CollectivesContract, SumsAreMadeInTheOrderOfTheRanksWhateverTheSize) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble, at::kLong}) {
    run(3, [&](Communicator& ranks) {
      for (const int64_t count : {1, 17, 4'096, 1'000'003}) {
        if (count > 4'096 && dtype != at::kFloat) continue;
        at::Tensor tensor = share_of(ranks.rank(), count, dtype);
        ranks.all_reduce(tensor, Reduce::kSum)->wait(soon());
        if (is("hosts_of_two") && dtype == at::kBFloat16) continue;  // rounded in each host, too
        EXPECT_TRUE(at::equal(tensor, sum_in_order(3, count, dtype))) << count << " x " << c10::toString(dtype);
      }
    });
  }
}

TEST_P(CollectivesContract, TheHalvesOfAnAllReduceGiveItsBits) {
  for (const int size : {1, 2, 4}) {
    run(size, [&](Communicator& ranks) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kInt}) {
        for (const int64_t count : {0, 1, 1'000, 300'001}) {
          at::Tensor whole = share_of(ranks.rank(), count, dtype);
          ranks.all_reduce(whole, Reduce::kSum)->wait(soon());
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

TEST_P(CollectivesContract, ARoundedSumRemembersWhatItLost) {
  for (const int64_t count : {5, 300'001}) {
    run(3, [count](Communicator& ranks) {
      at::Tensor residual = at::zeros({count}), total = at::zeros({count}, at::kDouble);
      const at::Tensor exact = sum_in_order(3, count, at::kDouble);
      const at::Tensor mine = share_of(ranks.rank(), count, at::kFloat);
      constexpr int kSteps = 32;
      for (int step = 0; step < kSteps; ++step) {
        at::Tensor tensor = mine.clone();
        ranks.all_reduce_rounded(tensor, residual)->wait(soon());
        if (!is("one_host")) {
          EXPECT_TRUE(at::equal(tensor, tensor.to(at::kBFloat16).to(at::kFloat)));
        }
        at::Tensor of_rank_0 = tensor.clone();
        ranks.broadcast(of_rank_0, 0)->wait(soon());
        EXPECT_TRUE(at::equal(tensor, of_rank_0));
        if (step == 0 && !is("one_host")) {
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

TEST_P(CollectivesContract, WhatIsNoNumberIsInOneRoundedSumOnly) {
  constexpr int64_t kCount = 7;
  run(3, [](Communicator& ranks) {
    at::Tensor residual = at::zeros({kCount});
    const auto sum = [&](float first) {
      at::Tensor tensor = at::ones({kCount});
      tensor[0] = first;
      ranks.all_reduce_rounded(tensor, residual)->wait(soon());
      return tensor;
    };
    constexpr float kInfinite = std::numeric_limits<float>::infinity();
    EXPECT_FALSE(at::isfinite(sum(ranks.rank() == 1 ? kInfinite : 1)).all().item<bool>());
    EXPECT_FALSE(at::isfinite(sum(ranks.rank() == 1 ? NAN : 1)).all().item<bool>());
    EXPECT_TRUE(at::equal(sum(1), at::full({kCount}, 3.0f)));
    EXPECT_TRUE(at::isfinite(residual).all().item<bool>());
  });
}

TEST_P(CollectivesContract, SmallSumsOfManyRanksAreMadeInTheirOrder) {
  run(7, [](Communicator& ranks) {
    at::Tensor sum = share_of(ranks.rank(), 9, at::kFloat);
    at::Tensor largest = sum.clone();
    ranks.all_reduce(sum, Reduce::kSum)->wait(soon());
    ranks.all_reduce(largest, Reduce::kMax)->wait(soon());
    at::Tensor expected = share_of(0, 9, at::kFloat);
    for (int rank = 1; rank < 7; ++rank) expected = at::maximum(expected, share_of(rank, 9, at::kFloat));
    EXPECT_TRUE(at::equal(largest, expected));
    if (is("hosts_of_two")) {
      EXPECT_TRUE(at::allclose(sum, sum_in_order(7, 9, at::kFloat)));  // by hosts first
    } else {
      EXPECT_TRUE(at::equal(sum, sum_in_order(7, 9, at::kFloat)));
    }
  });
}

TEST_P(CollectivesContract, EveryRootBroadcastsToAll) {
  run(5, [](Communicator& ranks) {
    for (int root = 0; root < 5; ++root) {
      for (const int64_t count : {1, 900'001}) {
        at::Tensor tensor = ranks.rank() == root ? share_of(root, count, at::kFloat) : at::zeros({count});
        ranks.broadcast(tensor, root)->wait(soon());
        EXPECT_TRUE(at::equal(tensor, share_of(root, count, at::kFloat))) << "from rank " << root;
      }
    }
  });
}

TEST_P(CollectivesContract, SendsNoMoreThanItHasTo) {
  if (is("local") || is("staged")) return;  // sends nothing
  run(4, [](Communicator& ranks) {
    constexpr int64_t kCount = 1 << 19, kBytes = kCount * 4;
    const std::vector<int64_t> offsets = even_parts(kCount, 4);
    at::Tensor flat = at::ones({kCount}), residual = at::zeros({kCount});
    int64_t before = ranks.bytes_sent();
    const auto sent_by = [&](const WorkPtr& work) {
      work->wait(soon());
      const int64_t sent = ranks.bytes_sent() - before;
      before += sent;
      return sent;
    };
    // Of n = 4 ranks on m hosts with g ranks each: (m - 1) / m of the share of one of g, in each half of an all_reduce.
    const int64_t half = is("one_host") ? 0 : is("hosts_of_two") ? kBytes / 4 : kBytes * 3 / 4;
    EXPECT_EQ(sent_by(ranks.all_reduce(flat, Reduce::kSum)), 2 * half);
    EXPECT_EQ(sent_by(ranks.reduce_scatter(flat, offsets)), half);
    EXPECT_EQ(sent_by(ranks.all_gather(flat, offsets)), half);
    EXPECT_EQ(sent_by(ranks.all_reduce_rounded(flat, residual)), half) << "half the bytes of an all_reduce";
  });
}

TEST_P(CollectivesContract, ManyHalvesMayBeUnderWayAtOnce) {
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

TEST_P(CollectivesContract, HalvesThatARankDoesNotCallEndAtTheirDeadline) {
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

TEST_P(CollectivesContract, SumsInTheBufferThatItGaveOut) {
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

TEST_P(CollectivesContract, TheHalvesWorkInTheBufferThatItGaveOut) {
  run(3, [](Communicator& ranks) {
    constexpr int64_t kElements = 100'003;
    const at::Tensor memory = ranks.reduction_buffer(2 * kElements * 4, soon());
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const auto& offsets : some_parts(kElements, 3)) {
        at::Tensor flat = memory.view(dtype).narrow(0, 7, kElements);
        flat.copy_(share_of(ranks.rank(), kElements, dtype));
        ranks.reduce_scatter(flat, offsets)->wait(soon());
        ranks.all_gather(flat, offsets)->wait(soon());
        if (!is("hosts_of_two") || dtype == at::kFloat) {
          EXPECT_TRUE(at::equal(flat, sum_in_order(3, kElements, dtype))) << c10::toString(dtype);
        }
        flat.fill_(ranks.rank());  // at once: nobody reads here any more
        ranks.all_reduce(flat, Reduce::kMax)->wait(soon());
        EXPECT_TRUE((flat == 2).all().item<bool>()) << c10::toString(dtype);
      }
    }
  });
}

TEST_P(CollectivesContract, ASumInItsBufferEndsAtTheDeadlineWhenARankDoesNotCome) {
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
