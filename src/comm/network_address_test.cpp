#include "comm/network_address.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace penstock::comm {
namespace {

TEST(NetworkAddress, TheWayToLoopbackStartsAtLoopback) {
  EXPECT_EQ(local_address_towards("127.0.0.1", 29500), "127.0.0.1");
  EXPECT_TRUE(is_loopback_address("127.0.1.1"));
  EXPECT_TRUE(is_loopback_address("::1"));
  EXPECT_FALSE(is_loopback_address("10.0.0.1"));
}

TEST(NetworkAddress, AnUnknownHostIsNamed) {
  try {
    (void)local_address_towards("no-such-host.invalid", 1);
    FAIL();
  } catch (const Error& failed) {
    EXPECT_NE(failed.message().find("no-such-host.invalid"), std::string::npos);
  }
}

TEST(NetworkAddress, OnlyInterfacesThatExistAreFound) {
  EXPECT_TRUE(has_interface("lo"));
  EXPECT_FALSE(has_interface("nosuch0"));
}

TEST(NetworkAddress, AFreePortHasNoListener) {
  EXPECT_EQ(probe_listener("127.0.0.1", find_free_port(), Deadline::after(seconds(10))), Listener::kAbsent);
  EXPECT_EQ(probe_listener("no-such-host.invalid", 1, Deadline::after(seconds(10))), Listener::kUnknown);
}

}  // namespace
}  // namespace penstock::comm
