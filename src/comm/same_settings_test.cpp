#include "comm/same_settings.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/spawn_ranks.h"

namespace penstock::comm {
namespace {

// What every rank says, empty when it is content.
std::vector<std::string> say(const std::vector<Settings>& by_rank) {
  std::vector<std::string> said(by_rank.size());
  spawn_ranks(static_cast<int>(by_rank.size()), [&](Communicator& world) {
    const auto rank = static_cast<size_t>(world.rank());
    try {
      require_same_settings(world, by_rank[rank], Deadline::after(seconds(60)));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInvalidArgument);
      said[rank] = e.message();
    }
  });
  return said;
}

TEST(SameSettings, EqualRanksMayBegin) {
  const Settings same = {{"optimizer.lr", "0.001"}, {"output", "a\tb\n\xff"}};
  EXPECT_EQ(say({same, same, same}), std::vector<std::string>(3));
  EXPECT_EQ(say({same}), std::vector<std::string>(1));
}

TEST(SameSettings, TheLowestRankThatDiffersIsNamedOnAllRanksWithBothValues) {
  const Settings good = {{"optimizer.lr", "0.001"}, {"seed", "1"}};
  const auto said = say({good, good, {{"optimizer.lr", "0.002"}, {"seed", "1"}}, {{"optimizer.lr", "0.003"}, {"seed", "1"}}});
  for (const std::string& text : said) {
    EXPECT_EQ(text, "rank 2 differs from rank 0: optimizer.lr is 0.002, on rank 0 0.001; start all ranks with the same configuration and the same programs");
  }
}

TEST(SameSettings, NamesThatOnlyOneKnowsAndManyDifferencesAreTold) {
  const auto said = say({{{"old", "1"}}, {{"new", "2"}}});
  EXPECT_NE(said[0].find("new is 2, and unknown to rank 0; old is unknown, on rank 0 1"), std::string::npos) << said[0];
  Settings first, second;
  for (int i = 0; i < 8; ++i) {
    first.emplace_back(fmt::format("key{}", i), "1");
    second.emplace_back(fmt::format("key{}", i), "2");
  }
  EXPECT_NE(say({first, second})[0].find("; and 3 more; start"), std::string::npos);
}

}  // namespace
}  // namespace penstock::comm
