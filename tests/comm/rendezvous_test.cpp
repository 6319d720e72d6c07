// Ranks that come to the wrong place: another job's store, a port that something else has, a rank 0 that is not there.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/temp_dir.h"
#include "cluster/launch_env.h"
#include "cluster/process.h"
#include "comm/network_address.h"

namespace penstock::comm {
namespace {

// One rank, which meets its peers, then talks to them once and ends ("sockets") or stays until it is destroyed ("stay").
class Rank {
 public:
  Rank(int rank, int port, const std::string& job, const std::string& connect_seconds = "60", const std::string& then = "sockets") {
    cluster::ProcessOptions options;
    options.argv = {COLLECTIVE_RANK, then, "0", connect_seconds};
    options.env = cluster::rank_environment({rank, 2, rank, 2, "127.0.0.1", port, job});
    options.log_file = folder_.path() / "log";
    process_ = cluster::ChildProcess::spawn(options).value();
  }
  bool ended() { return process_->try_wait().has_value(); }
  // Its end, and what it said.
  std::string end() {
    const auto status = process_->wait(Deadline::after(seconds(100)));
    const std::string log = read_file(folder_.path() / "log", 1 << 20).value();
    return status ? status->describe() + "\n" + log : "still runs:\n" + log;
  }

 private:
  const TempDir folder_;
  std::unique_ptr<cluster::ChildProcess> process_;
};

void expect_all(const std::string& text, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << "expected '" << part << "' in:\n" << text;
}

TEST(Rendezvous, AStrangerIsRefusedByNameAndTheJobGoesOn) {
  const int port = find_free_port();
  Rank first(0, port, "alpha");
  expect_all(Rank(1, port, "beta").end(), {"exit code 75", "job 'beta' of 2 ranks", "job 'alpha' of 2 ranks", "127.0.0.1:" + std::to_string(port), "network.master_port"});
  Rank second(1, port, "alpha");
  expect_all(first.end(), {"exit code 0", "SOCKETS"});
  expect_all(second.end(), {"exit code 0", "SOCKETS"});
}

TEST(Rendezvous, ARankThatComesTwiceIsRefused) {
  const int port = find_free_port();
  Rank first(0, port, "", "60", "stay"), second(1, port, "", "60", "stay"), third(1, port, "", "60", "stay");
  for (const Deadline deadline = Deadline::after(seconds(100)); !second.ended() && !third.ended() && !deadline.passed();) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ASSERT_NE(second.ended(), third.ended()) << "one of the two stays";
  expect_all((second.ended() ? second : third).end(), {"exit code 75", "has come twice", "two jobs on one port"});
  EXPECT_FALSE(first.ended());
}

TEST(Rendezvous, APortThatIsTakenIsNamedWithItsHolder) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t length = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(::listen(listener, 8), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length), 0);
  const int port = ntohs(address.sin_port);
  expect_all(Rank(0, port, "alpha").end(), {"exit code 75", "127.0.0.1:" + std::to_string(port), fmt::format("process {} (", ::getpid()), "network.master_port"});
  ::close(listener);
}

TEST(Rendezvous, ARank0ThatNeverComesIsNamedWithWhatToCheck) {
  const int port = find_free_port();
  expect_all(Rank(1, port, "alpha", "1").end(), {"exit code 75", "could not reach rank 0's store at 127.0.0.1:" + std::to_string(port) + " within 1 s", "MASTER_ADDR", "firewall"});
}

}  // namespace
}  // namespace penstock::comm
