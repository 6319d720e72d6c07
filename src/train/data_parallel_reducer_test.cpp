#include "train/data_parallel_reducer.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "comm/spawn_ranks.h"

namespace penstock::train {
namespace {

Deadline soon() { return Deadline::after(seconds(20)); }

// Parameters that are used, one after the other, in an order of choice: their gradients come in the reverse of it.
struct Chain {
  Chain() {
    for (int i = 0; i < 4; ++i) parameters.push_back(at::full({16}, 1.0 + i).requires_grad_(true));
  }
  void backward(const std::vector<size_t>& uses) {
    at::Tensor y = at::ones({16});
    for (const size_t i : uses) y = y * parameters[i];
    torch::autograd::backward({y.sum()}, {});
  }
  std::vector<at::Tensor> parameters;
};

constexpr plan::BucketLimits kOneEach{64, 64};

TEST(DataParallelReducer, TakesTheOrderThatTheFirstReplicaSaw) {
  comm::spawn_ranks(3, [&](comm::Communicator& replicas) {
    Chain chain;
    DataParallelReducer reducer({chain.parameters}, &replicas, kOneEach, soon());
    EXPECT_EQ(reducer.order(0), (std::vector<int>{3, 2, 1, 0})) << "the reverse of the forward order, until something was seen";
    for (int step = 0; step < 3; ++step) {
      reducer.begin_step();
      reducer.arm(0, nullptr);
      chain.backward(replicas.rank() == 0 ? std::vector<size_t>{2, 0, 3, 1} : std::vector<size_t>{3, 2, 1, 0});
      EXPECT_EQ(reducer.finish(soon()).size(), 4u);
      EXPECT_EQ(reducer.order(0), (std::vector<int>{1, 3, 0, 2}));
      // 4! / p, from each of three replicas.
      for (size_t i = 0; i < 4; ++i) EXPECT_EQ(chain.parameters[i].grad()[0].item<float>(), 3 * 24.0f / static_cast<float>(i + 1)) << i << " in step " << step;
    }
  });
}

TEST(DataParallelReducer, ParametersThatSomeReplicasLeaveOutCountAsZeroAndHangNobody) {
  comm::spawn_ranks(3, [&](comm::Communicator& replicas) {
    Chain chain;
    DataParallelReducer reducer({chain.parameters}, &replicas, kOneEach, soon());
    for (int step = 0; step < 3; ++step) {
      reducer.begin_step();
      reducer.arm(0, nullptr);
      // Parameter 1 is used by one replica, in turn; parameter 3 by none.
      const bool uses = replicas.rank() == step;
      chain.backward(uses ? std::vector<size_t>{0, 1, 2} : std::vector<size_t>{2, 0});
      EXPECT_EQ(reducer.has_gradient(chain.parameters[1]), uses);
      EXPECT_FALSE(reducer.has_gradient(chain.parameters[3]));
      (void)reducer.finish(soon());
      const float expected[] = {6.0f + 3 + 3, 3, 2.0f + 1 + 1, 0};
      for (size_t i = 0; i < 4; ++i) EXPECT_EQ(chain.parameters[i].grad()[0].item<float>(), expected[i]) << i << " in step " << step;
    }
    EXPECT_EQ(reducer.order(0).back(), 3) << "never seen";
  });
}

TEST(DataParallelReducer, AReplicaWithoutABatchAddsZeros) {
  comm::spawn_ranks(2, [&](comm::Communicator& replicas) {
    Chain chain;
    DataParallelReducer reducer({chain.parameters}, &replicas, kOneEach, soon());
    const std::vector<at::Tensor> nothing;
    for (int step = 0; step < 2; ++step) {
      const bool joins = replicas.rank() == step;
      reducer.begin_step();
      reducer.arm(0, joins ? &nothing : nullptr);
      if (!joins) chain.backward({3, 0, 1, 2});
      (void)reducer.finish(soon());
      EXPECT_EQ(chain.parameters[3].grad()[0].item<float>(), 6.0f);
    }
  });
}

TEST(DataParallelReducer, ReducingAfterTheBackwardPassGivesTheSameBits) {
  comm::spawn_ranks(3, [&](comm::Communicator& replicas) {
    Chain overlapped, after;
    for (Chain* chain : {&overlapped, &after}) {
      for (size_t i = 0; i < 4; ++i) {
        const auto generator = at::detail::createCPUGenerator(10 * i + static_cast<size_t>(replicas.rank()));
        chain->parameters[i] = at::randn({16}, generator).requires_grad_(true);
      }
    }
    DataParallelReducer first({overlapped.parameters}, &replicas, kOneEach, soon()), second({after.parameters}, &replicas, kOneEach, soon());
    const std::vector<at::Tensor> nothing;
    for (int step = 0; step < 2; ++step) {
      first.begin_step();
      first.arm(0, nullptr);
      overlapped.backward({0, 1, 2, 3});
      (void)first.finish(soon());
      second.begin_step();
      after.backward({0, 1, 2, 3});
      second.arm(0, &nothing);
      (void)second.finish(soon());
      for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(overlapped.parameters[i].grad().equal(after.parameters[i].grad())) << i << " in step " << step;
    }
  });
}

TEST(DataParallelReducer, GradientsStayWhereTheyAreBetweenTheFirstStepAndTheNext) {
  comm::spawn_ranks(2, [&](comm::Communicator& replicas) {
    Chain chain;
    DataParallelReducer reducer({chain.parameters}, &replicas, {1 << 20, 1 << 20}, soon());
    std::vector<void*> before;
    reducer.begin_step();
    for (const auto& p : chain.parameters) before.push_back(p.grad().data_ptr());
    reducer.arm(0, nullptr);
    chain.backward({3, 2, 1, 0});
    (void)reducer.finish(soon());
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(chain.parameters[i].grad().data_ptr(), before[i]) << "the update of the first step reads them";
    reducer.begin_step();
    EXPECT_NE(chain.parameters[0].grad().data_ptr(), before[0]);
    for (size_t i = 1; i < 4; ++i) {  // one piece of memory, in the new order
      EXPECT_EQ(static_cast<char*>(chain.parameters[i].grad().data_ptr()) - static_cast<char*>(chain.parameters[i - 1].grad().data_ptr()), 64);
    }
  });
}

TEST(DataParallelReducer, EachReplicaGetsTheSumsOfItsPartOfEveryBucket) {
  comm::spawn_ranks(2, [&](comm::Communicator& replicas) {
    std::vector<at::Tensor> parameters;
    for (int i = 0; i < 3; ++i) parameters.push_back(at::zeros({32}).requires_grad_(true));
    DataParallelReducer reducer({parameters}, &replicas, {1 << 20, 1 << 20}, soon(), DataParallelReducer::Sums::kOwnPart, parameters);
    for (int step = 0; step < 3; ++step) {
      reducer.begin_step();
      reducer.arm(0, nullptr);
      torch::autograd::backward({(parameters[step % 3] + 2 * parameters[(step + 1) % 3] + 4 * parameters[(step + 2) % 3]).sum()}, {});
      EXPECT_EQ(reducer.finish(soon()).size(), 3u) << "each has one for itself";
      for (size_t i = 0; i < 3; ++i) {
        const auto place = reducer.place(parameters[i]);
        const auto own = static_cast<size_t>(replicas.rank());
        const int64_t begin = std::clamp(place.parts[own] - place.begin, int64_t{0}, int64_t{32}), end = std::clamp(place.parts[own + 1] - place.begin, int64_t{0}, int64_t{32});
        EXPECT_EQ(end - begin, 16) << "half of a bucket of its own";
        const float factors[] = {1, 2, 4};
        EXPECT_TRUE(parameters[i].grad().narrow(0, begin, end - begin).eq(2 * factors[(i + 3 - static_cast<size_t>(step)) % 3]).all().item<bool>()) << i << " in step " << step;
      }
    }
  });
}

TEST(DataParallelReducer, TakesOrdersOfAnEarlierRunAndOnlyThoseThatFit) {
  comm::spawn_ranks(2, [&](comm::Communicator& replicas) {
    Chain chain;
    DataParallelReducer reducer({chain.parameters}, &replicas, {1 << 20, 1 << 20}, soon());
    reducer.round_to_bf16();
    reducer.residual(chain.parameters[1]).fill_(0.5);
    for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{}, {0, 1, 2}, {0, 1, 2, 2}, {0, 1, 2, 4}, {-1, 0, 1, 2}}) EXPECT_FALSE(reducer.set_orders(wrong));
    EXPECT_EQ(reducer.orders(), (std::vector<int64_t>{3, 2, 1, 0}));
    ASSERT_TRUE(reducer.set_orders(std::vector<int64_t>{1, 3, 0, 2}));
    EXPECT_EQ(reducer.orders(), (std::vector<int64_t>{1, 3, 0, 2}));
    EXPECT_EQ(reducer.place(chain.parameters[1]).begin, 0);
    EXPECT_TRUE(reducer.residual(chain.parameters[1]).eq(0.5).all().item<bool>()) << "moves with its parameter";
    EXPECT_EQ(reducer.residual(chain.parameters[3]).abs().sum().item<float>(), 0);
    reducer.begin_step();
    reducer.arm(0, nullptr);
    chain.backward({0, 1, 2, 3});
    (void)reducer.finish(soon());
    EXPECT_FALSE(reducer.changes_places()) << "the order is known, whatever is seen";
  });
}

}  // namespace
}  // namespace penstock::train
