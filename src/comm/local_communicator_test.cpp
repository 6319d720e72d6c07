#include "comm/local_communicator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/spawn_ranks.h"

namespace penstock::comm {
namespace {

Deadline soon() { return Deadline::after(seconds(60)); }

std::string message_of(const std::function<void()>& action) {
  try {
    action();
    return "";
  } catch (const Error& failed) {
    return failed.message();
  }
}

TEST(LocalCommunicator, SumsInRankOrder) {
  // In float32, (1e8 + 1) - 1e8 is 0 and (1e8 - 1e8) + 1 is 1: the order shows.
  const float values[] = {1e8F, 1.0F, -1e8F};
  spawn_ranks(3, [&](Communicator& comm) {
    at::Tensor tensor = at::full({1}, values[comm.rank()]);
    comm.all_reduce(tensor, Reduce::kSum)->wait(soon());
    EXPECT_EQ(tensor.item<float>(), (1e8F + 1.0F) - 1e8F);
  });
}

TEST(LocalCommunicator, ASenderMayChangeItsTensorAtOnce) {
  spawn_ranks(2, [](Communicator& comm) {
    at::Tensor tensor = at::ones({3});
    if (comm.rank() == 0) {
      comm.send(tensor, 1, 0)->wait(soon());
      tensor.fill_(5);
      comm.barrier()->wait(soon());
      return;
    }
    comm.barrier()->wait(soon());
    tensor.zero_();
    comm.recv(tensor, 0, 0)->wait(soon());
    EXPECT_TRUE(at::equal(tensor, at::ones({3})));
  });
}

TEST(LocalCommunicator, ADyingRankWakesAllOthersWhichNameIt) {
  std::vector<std::string> others(4);
  const std::string thrown = message_of([&] {
    spawn_ranks(4, [&](Communicator& comm) {
      if (comm.rank() == 2) throw error(Code::kDataLoss, "disk full");
      at::Tensor tensor = at::ones({3});
      others[static_cast<size_t>(comm.rank())] = message_of([&] {
        const auto pair = comm.rank() == 0 ? nullptr : comm.split(std::vector<int>{1, 3}, "pair", soon());
        if (comm.rank() == 1) pair->recv(tensor, 1, 0)->wait(soon());  // in a group that rank 2 is not in
        comm.all_reduce(tensor, Reduce::kSum)->wait(soon());
      });
    });
  });
  EXPECT_EQ(thrown, "disk full") << "what the rank threw, not what the others saw of it";
  for (const int rank : {0, 1, 3}) EXPECT_EQ(others[static_cast<size_t>(rank)], "rank 2 failed: disk full");
}

TEST(LocalCommunicator, AReceiveOfAnotherShapeOrDtypeIsRefusedWithBoth) {
  const std::string message = message_of([] {
    spawn_ranks(2, [](Communicator& comm) {
      at::Tensor sent = at::zeros({2, 3}, at::kInt);
      at::Tensor target = at::zeros({3, 2});
      if (comm.rank() == 0) comm.send(sent, 1, 0)->wait(soon());
      if (comm.rank() == 1) comm.recv(target, 0, 0)->wait(soon());
    });
  });
  EXPECT_EQ(message, "recv of Float[3, 2] from rank 0, tag 0, in group 'world' (this is its rank 1 of 2): the message is Int[2, 3]");
}

TEST(LocalCommunicator, RanksThatCallDifferentCollectivesAreToldBoth) {
  const std::string message = message_of([] {
    spawn_ranks(2, [](Communicator& comm) {
      at::Tensor tensor = at::zeros({2 + comm.rank()});
      comm.all_reduce(tensor, Reduce::kSum)->wait(soon());
    });
  });
  EXPECT_NE(message.find("Float[2]"), std::string::npos) << message;
  EXPECT_NE(message.find("Float[3]"), std::string::npos) << message;
}

TEST(LocalCommunicator, ATimedOutCollectiveNamesTheRanksThatAreMissing) {
  const auto ranks = make_local_group(3);
  const std::string message = message_of([&] { ranks[1]->barrier()->wait(Deadline::after(milliseconds(10))); });
  EXPECT_NE(message.find("not called by rank 0, 2"), std::string::npos) << message;
}

}  // namespace
}  // namespace penstock::comm
