#include "comm/c10d_communicator.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/error.h"
#include "comm/network_address.h"

namespace penstock::comm {
namespace {

Error failure_of(const cluster::RankInfo& info, const C10dOptions& options) {
  try {
    (void)connect_c10d(info, options);
  } catch (const Error& failed) {
    return failed;
  }
  ADD_FAILURE() << "expected an Error";
  return {Code::kInternal, ""};
}

TEST(C10dCommunicator, RanksThatDoNotComeAreNamed) {
  C10dOptions options;
  options.connect_timeout = milliseconds(300);
  options.connect_timeout_key = "network.some_key";
  const Error failed = failure_of({0, 4, 0, 4, "127.0.0.1", find_free_port()}, options);
  EXPECT_EQ(failed.code(), Code::kUnavailable);
  EXPECT_NE(failed.message().find("3 of 4 ranks"), std::string::npos) << failed.message();
  EXPECT_NE(failed.message().find("rank 1, 2, 3"), std::string::npos) << failed.message();
  EXPECT_NE(failed.message().find("within 0.3 s (network.some_key)"), std::string::npos) << failed.message();
}

TEST(C10dCommunicator, ARank0ThatDoesNotComeIsNamedWithItsAddress) {
  C10dOptions options;
  options.connect_timeout = milliseconds(300);
  const int port = find_free_port();
  const Error failed = failure_of({1, 2, 1, 2, "127.0.0.1", port}, options);
  EXPECT_NE(failed.message().find("rank 0's store at 127.0.0.1:" + std::to_string(port) + " within 0.3 s:"), std::string::npos) << failed.message();
}

// Another program on the port, that says nothing.
TEST(C10dCommunicator, AListenerThatIsNoStoreIsRefusedInTime) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 8), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  C10dOptions options;
  options.connect_timeout = seconds(1);
  const Error failed = failure_of({1, 2, 1, 2, "127.0.0.1", ntohs(address.sin_port)}, options);
  EXPECT_EQ(failed.code(), Code::kUnavailable);
  EXPECT_NE(failed.message().find(fmt::format("127.0.0.1:{}", ntohs(address.sin_port))), std::string::npos) << failed.message();
  ::close(listener);
}

TEST(C10dCommunicator, APortThatIsTakenIsNamed) {
  const int port = find_free_port();
  C10dOptions options;
  options.connect_timeout = seconds(60);
  std::unique_ptr<Communicator> other_job;
  std::thread rank_1([&] { (void)connect_c10d({1, 2, 1, 2, "127.0.0.1", port}, options); });
  other_job = connect_c10d({0, 2, 0, 2, "127.0.0.1", port}, options);
  rank_1.join();
  const Error failed = failure_of({0, 2, 0, 2, "127.0.0.1", port}, options);
  EXPECT_NE(failed.message().find("127.0.0.1:" + std::to_string(port)), std::string::npos) << failed.message();
  EXPECT_NE(failed.message().find("MASTER_PORT"), std::string::npos) << failed.message();
}

TEST(C10dCommunicator, LoopbackIsRefusedWhenRanksAreOnOtherMachines) {
  const Error failed = failure_of({0, 4, 0, 2, "127.0.0.1", find_free_port()}, {});
  EXPECT_EQ(failed.code(), Code::kFailedPrecondition);
  EXPECT_NE(failed.message().find("2 ranks on other machines"), std::string::npos) << failed.message();
}

TEST(C10dCommunicator, AnInterfaceThatDoesNotExistIsNamed) {
  C10dOptions options;
  options.interface = "nosuch0";
  EXPECT_NE(failure_of({0, 2, 0, 2, "127.0.0.1", find_free_port()}, options).message().find("'nosuch0'"), std::string::npos);
}

}  // namespace
}  // namespace penstock::comm
