// Tensors of a GPU between ranks; what holds for all tensors is in the contract tests, kind "staged".
#include <gtest/gtest.h>

#include "comm/contract_ranks_test.h"
#include "tensor/device.h"

namespace penstock::comm {
namespace {

class GpuTensors : public RanksOfAnyKind {
 protected:
  void SetUp() override {
    if (tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
  }
};

TEST_P(GpuTensors, TravelThroughEveryOperation) {
  run(3, [](Communicator& world) {
    const at::Device device = tensor::find_device("cuda", world.rank()).value();
    const int rank = world.rank();
    const auto options = at::TensorOptions(at::kFloat).device(device);
    constexpr int64_t kCount = 70000;
    at::Tensor mine = at::arange(kCount, options) + rank, theirs = at::zeros({kCount}, options);
    const WorkPtr sent = world.send(mine, (rank + 1) % 3, 5);
    world.recv(theirs, (rank + 2) % 3, 5)->wait(soon());
    sent->wait(soon());
    EXPECT_TRUE(theirs.equal(at::arange(kCount, options) + (rank + 2) % 3));

    at::Tensor sum = at::full({kCount}, rank + 1, options), top = at::full({10}, rank, options), of_one = at::full({10}, rank, options);
    world.all_reduce(sum, Reduce::kSum)->wait(soon());
    world.all_reduce(top, Reduce::kMax)->wait(soon());
    world.broadcast(of_one, 1)->wait(soon());
    EXPECT_TRUE(sum.equal(at::full({kCount}, 6, options)) && top.equal(at::full({10}, 2, options)) && of_one.equal(at::full({10}, 1, options)));

    const std::vector<int64_t> offsets = {0, 16, 16, 100};
    at::Tensor flat = at::full({100}, rank + 1, options);
    world.reduce_scatter(flat, offsets)->wait(soon());
    const auto own = flat.slice(0, offsets[static_cast<size_t>(rank)], offsets[static_cast<size_t>(rank) + 1]);
    EXPECT_TRUE(own.equal(at::full_like(own, 6)));
    flat.fill_(rank);
    world.all_gather(flat, offsets)->wait(soon());
    EXPECT_TRUE(flat.equal(at::cat({at::zeros({16}, options), at::full({84}, 2, options)})));

    at::Tensor rounded = at::full({100}, 1.0 + rank, options), residual = at::zeros({100}, at::kFloat);
    world.all_reduce_rounded(rounded, residual)->wait(soon());
    EXPECT_TRUE(rounded.equal(at::full({100}, 6, options)));
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, GpuTensors, testing::Values("local", "one_host", "hosts_of_one"));

TEST(StagedCommunicator, RefusesATensorWithGaps) {
  spawn_staged_ranks(1, [](Communicator& world) {
    at::Tensor gaps = at::zeros({4, 4}).t().slice(0, 0, 2);
    EXPECT_THROW((void)world.all_reduce(gaps, Reduce::kSum), Bug);
  });
}

}  // namespace
}  // namespace penstock::comm
