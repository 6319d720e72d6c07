#include "pipeline/tensor_link.h"

#include <gtest/gtest.h>

#include "comm/spawn_ranks.h"

namespace penstock::pipeline {
namespace {

constexpr int kKey = 3;

Deadline soon() { return Deadline::after(seconds(30)); }

// Sends `messages` one after the other from rank 0 to rank 1, which checks them; returns how many receives were posted before each.
std::vector<size_t> posted_early(const std::vector<model::Tensors>& messages) {
  std::vector<size_t> posted;
  comm::spawn_ranks(2, [&](comm::Communicator& ranks) {
    TensorLink link(ranks);
    for (const model::Tensors& message : messages) {
      if (ranks.rank() == 0) {
        link.send_activation(1, kKey, message);
      } else {
        TensorLink::Expected expected = link.expect_activation(0, kKey);
        posted.push_back(expected.works.size() - 1);
        const model::Tensors arrived = link.wait_activation(std::move(expected), true, soon());
        EXPECT_EQ(arrived.size(), message.size());
        for (size_t i = 0; i < message.size(); ++i) {
          EXPECT_TRUE(arrived.at(i).equal(message[i])) << "message " << posted.size() << ", tensor " << i;
          EXPECT_EQ(arrived[i].scalar_type(), message[i].scalar_type());
          EXPECT_EQ(arrived[i].requires_grad(), message[i].requires_grad());
        }
      }
    }
    link.flush(soon());
    ranks.barrier()->wait(soon());
  });
  return posted;
}

at::Tensor floats(at::IntArrayRef shape) { return at::randn(shape).requires_grad_(true); }

TEST(TensorLink, PostsReceivesOfMessagesThatStayAlikeBeforeTheirHeaderIsRead) {
  std::vector<model::Tensors> messages;
  for (int i = 0; i < 4; ++i) messages.push_back({floats({2, 3}), at::arange(5)});
  EXPECT_EQ(posted_early(messages), (std::vector<size_t>{0, 0, 2, 2}));
}

TEST(TensorLink, CarriesAMessageThatIsNotAsExpected) {
  const auto message = [](int64_t rows) { return model::Tensors{floats({rows, 3}), at::ones({rows}, at::kBool)}; };
  EXPECT_EQ(posted_early({message(2), message(2), message(7), message(7), message(7), {floats({2, 3})}, {}, {}, {}, message(2)}),
            (std::vector<size_t>{0, 0, 2, 0, 2, 2, 0, 0, 0, 0}));
}

TEST(TensorLink, ExpectsNothingOfMessagesThatNeverRepeat) {
  std::vector<model::Tensors> messages;
  for (int64_t i = 1; i < 6; ++i) messages.push_back({floats({i})});
  EXPECT_EQ(posted_early(messages), (std::vector<size_t>(5, 0)));
}

TEST(TensorLink, AnotherDtypeIsAnotherShape) {
  EXPECT_EQ(posted_early({{at::ones({4})}, {at::ones({4})}, {at::ones({4}, at::kDouble)}}), (std::vector<size_t>{0, 0, 1}));
}

}  // namespace
}  // namespace penstock::pipeline
