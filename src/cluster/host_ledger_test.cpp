#include "cluster/host_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <set>

#include "cluster/device_assignment.h"

namespace penstock::cluster {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> numbered(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}
HostOffer host(const std::string& name, int devices, int cores = 4) { return {name, numbered(devices), numbered(cores)}; }
GroupShape gpus(int num_hosts, int each) {
  GroupShape shape;
  shape.num_hosts = num_hosts;
  shape.ranks_per_host = shape.devices_per_host = each;
  shape.on_gpu = true;
  return shape;
}

TEST(HostLedger, GivesEachMachineItsRanksInTheOrderOfTheirNames) {
  HostLedger ledger;
  (void)ledger.add(host("c", 4));
  (void)ledger.add(host("b", 4));
  const auto shares = ledger.place(gpus(2, 4)).value();
  ASSERT_EQ(shares.size(), 2u);
  EXPECT_EQ(shares[0].name, "b");
  EXPECT_EQ(shares[0].first_rank, 4) << "ranks 0 to 3 are the front door's";
  EXPECT_EQ(shares[1].name, "c");
  EXPECT_EQ(shares[1].first_rank, 8);
  EXPECT_EQ(device_list(shares[1].devices), "0,1,2,3");
}

TEST(HostLedger, FillsTheMachineThatHasJustEnough) {
  HostLedger ledger;
  (void)ledger.add(host("large", 8));
  (void)ledger.add(host("small", 2));
  EXPECT_EQ(ledger.place(gpus(1, 2)).value()[0].name, "small");
  const auto second = ledger.place(gpus(1, 2)).value()[0];
  EXPECT_EQ(second.name, "large");
  EXPECT_EQ(device_list(second.devices), "0,1");
  EXPECT_EQ(device_list(ledger.place(gpus(1, 4)).value()[0].devices), "2,3,4,5");
}

TEST(HostLedger, StaysWithinTheDeviceIdsOfEachMachine) {
  HostLedger ledger;
  (void)ledger.add(host("a", 8));
  GroupShape shape = gpus(1, 2);
  shape.device_ids = {3, 5, 6};
  EXPECT_EQ(device_list(ledger.place(shape).value()[0].devices), "3,5");
  EXPECT_THAT(ledger.place(shape).error().message(), HasSubstr("with 2 free GPU(s) each of deviceIds, found 0 of them (agents: 'a' with 1 free of 8)"));
}

TEST(HostLedger, SaysWhatIsMissing) {
  HostLedger ledger;
  EXPECT_EQ(ledger.place(gpus(1, 4)).error().message(),
            "expected 1 other machine(s) with 4 free GPU(s) each, found 0 of them: no agent is connected; start `penstock agent` on 1 more");
  (void)ledger.add(host("a", 4));
  (void)ledger.add(host("b", 2));
  const auto refused = ledger.place(gpus(2, 4));
  EXPECT_EQ(refused.error().code(), Code::kResourceExhausted);
  EXPECT_EQ(refused.error().message(), "expected 2 other machine(s) with 4 free GPU(s) each, found 1 of them (agents: 'a' with 4 free of 4, 'b' with 2 free of 2); "
                                       "start `penstock agent` on 1 more");
  EXPECT_TRUE(ledger.place(gpus(1, 4)).ok()) << "a refused group holds nothing";
}

TEST(HostLedger, SpreadsGroupsWithoutGpusAndGivesThemCoresWhileThereAreEnough) {
  HostLedger ledger;
  (void)ledger.add(host("a", 0, 4));
  (void)ledger.add(host("b", 0, 4));
  GroupShape shape;
  shape.ranks_per_host = 3;
  shape.cores_per_rank = 1;
  const auto first = ledger.place(shape).value()[0], second = ledger.place(shape).value()[0], third = ledger.place(shape).value()[0];
  EXPECT_EQ(first.name, "a");
  EXPECT_THAT(first.cores, ElementsAre("0", "1", "2"));
  EXPECT_EQ(second.name, "b");
  EXPECT_TRUE(third.cores.empty()) << "too few are left: it shares them";
  ledger.release(first);
  EXPECT_THAT(ledger.place(shape).value()[0].cores, ElementsAre("0", "1", "2"));
}

TEST(HostLedger, AMachineThatComesBackHasEverythingFree) {
  HostLedger ledger;
  const uint64_t before = ledger.add(host("a", 2));
  const auto share = ledger.place(gpus(1, 2)).value()[0];
  ledger.remove(before);
  const uint64_t after = ledger.add(host("a", 2));
  EXPECT_NE(after, before);
  const auto again = ledger.place(gpus(1, 2)).value()[0];
  ledger.release(share);  // of the machine that has gone
  EXPECT_EQ(ledger.num_free_devices(after), 0);
  ledger.release(again);
  EXPECT_EQ(ledger.num_free_devices(after), 2);
  EXPECT_THROW(ledger.release(again), Bug);
}

// Two machines of 8 GPUs: the front door's, whose devices groups hold for their life, and an agent's, whose devices they hold from start to end. Groups of 4 ranks
// on each of both machines, and groups of 4 or 1 on the front door's alone, come, go, crash, restart, and lose the agent.
class TwoHosts {
 public:
  void step() {
    switch (random_() % 6) {
      case 0: return come(/*far=*/true, 4);
      case 1: return come(/*far=*/false, random_() % 2 == 0 ? 4 : 1);
      case 2: return go();
      case 3: return crash();
      case 4: return restart();
      default: return lose_or_return();
    }
  }
  void check() const {
    std::multiset<std::string> here, there;
    for (const auto& group : groups_) {
      here.insert(group.here.begin(), group.here.end());
      if (group.share && group.share->host == agent_) there.insert(group.share->devices.begin(), group.share->devices.end());
    }
    for (const auto* held : {&here, &there}) ASSERT_EQ(std::set<std::string>(held->begin(), held->end()).size(), held->size()) << "a device is held twice";
    ASSERT_EQ(local_.num_free(), 8 - static_cast<int>(here.size())) << "a device of the front door is lost";
    if (agent_ == 0) return;
    ASSERT_EQ(ledger_.num_free_devices(agent_), 8 - static_cast<int>(there.size())) << "a device of the agent is lost";
  }
  void end_all() {
    while (!groups_.empty()) go();
  }

 private:
  struct Group {
    bool far = false;
    std::vector<std::string> here;
    std::optional<HostShare> share;  // absent: it does not run
  };
  void come(bool far, int ranks) {
    auto here = local_.acquire(ranks);
    if (!here) return;
    groups_.push_back({far, *here, std::nullopt});
    start(groups_.back());
  }
  void start(Group& group) {
    if (!group.far || group.share) return;
    auto shares = ledger_.place(gpus(1, 4));
    if (shares) {
      group.share = (*shares)[0];
    } else {
      ASSERT_EQ(shares.error().code(), Code::kResourceExhausted);
    }
  }
  void end(Group& group) {
    if (group.share) ledger_.release(*group.share);
    group.share.reset();
  }
  void go() {
    if (groups_.empty()) return;
    const auto which = groups_.begin() + static_cast<std::ptrdiff_t>(random_() % groups_.size());
    end(*which);
    local_.release(which->here);
    groups_.erase(which);
  }
  void crash() {
    if (!groups_.empty()) end(groups_[random_() % groups_.size()]);
  }
  void restart() {
    for (Group& group : groups_) start(group);
  }
  void lose_or_return() {
    if (agent_ == 0) {
      agent_ = ledger_.add(host("agent", 8));
      return;
    }
    ledger_.remove(agent_);  // its groups notice later, when they crash
    agent_ = 0;
  }

  std::mt19937 random_{7};
  DeviceAssignment local_{numbered(8)};
  HostLedger ledger_;
  uint64_t agent_ = 0;
  std::vector<Group> groups_;
};

TEST(HostLedger, NoDeviceOfTwoMachinesIsHeldTwiceOrLostThroughAThousandRandomChanges) {
  TwoHosts hosts;
  for (int round = 0; round < 1000; ++round) {
    ASSERT_NO_FATAL_FAILURE(hosts.step()) << "round " << round;
    ASSERT_NO_FATAL_FAILURE(hosts.check()) << "round " << round;
  }
  hosts.end_all();
  hosts.check();
}

}  // namespace
}  // namespace penstock::cluster
