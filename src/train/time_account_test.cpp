#include "train/time_account.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "comm/spawn_ranks.h"

namespace penstock::train {
namespace {

using plan::ActionKind;

std::map<std::string_view, double> by_name(const std::vector<std::pair<std::string_view, double>>& parts) { return {parts.begin(), parts.end()}; }

TEST(TimeAccount, TakesGradientsApartWithoutCountingTwice) {
  // 1 s forward, 2 s waiting, 3 s backward, 1 s sending; reductions end 1.5 s after the backward, while the send runs; 7.2 s in all.
  const int64_t s = 1'000'000;
  const std::vector<pipeline::ActionRecord> actions = {{{ActionKind::kForward, 0, 0}, 0, s},
                                                       {{ActionKind::kRecvBackward, 0, 0}, s, 3 * s},
                                                       {{ActionKind::kBackward, 0, 0}, 3 * s, 6 * s},
                                                       {{ActionKind::kSendBackward, 0, 0}, 6 * s, 7 * s}};
  comm::spawn_ranks(1, [&](comm::Communicator& world) {
    TimeAccount account;
    account.add_gradients(actions, {{0, 64, 5 * s, 7 * s + s / 2}}, 7.2);
    const auto parts = by_name(account.mean(world, 10, Deadline::after(seconds(60))));
    EXPECT_DOUBLE_EQ(parts.at("compute"), 4);
    EXPECT_DOUBLE_EQ(parts.at("waiting for stages"), 3);
    EXPECT_NEAR(parts.at("exposed reduction"), 0.2, 1e-9) << "what compute and messages leave of it";
    EXPECT_NEAR(parts.at("other"), 2.8, 1e-9);
  });
}

TEST(TimeAccount, TheMeanOverTheRanksAddsUpToTheWallTime) {
  comm::spawn_ranks(3, [](comm::Communicator& world) {
    TimeAccount account;
    account.add(Spent::kCompute, 1 + world.rank());
    account.add(Spent::kValidation, 0.5);
    const auto parts = account.mean(world, 4, Deadline::after(seconds(60)));
    EXPECT_DOUBLE_EQ(by_name(parts).at("compute"), 2);
    EXPECT_DOUBLE_EQ(by_name(parts).at("other"), 1.5);
    EXPECT_DOUBLE_EQ(std::accumulate(parts.begin(), parts.end(), 0.0, [](double sum, const auto& part) { return sum + part.second; }), 4);
  });
}

TEST(TimeAccount, TheTableLeavesOutWhatTookNoTime) {
  EXPECT_EQ(time_table({{"compute", 6}, {"data", 0}, {"other", 2}}),
            "    compute                     6.0 s   75.0 %\n"
            "    other                       2.0 s   25.0 %\n"
            "    wall time                   8.0 s  100.0 %\n");
}

}  // namespace
}  // namespace penstock::train
