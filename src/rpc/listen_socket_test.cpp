#include "rpc/listen_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::rpc {
namespace {

using testing::HasSubstr;

class UnixSocketTest : public testing::Test {
 protected:
  Result<ListenSocket> open() { return ListenSocket::open({"", 0, false, path_}, "inference_address"); }
  TempDir folder_;
  const std::string path_ = folder_.path() / "http.sock";
};

TEST_F(UnixSocketTest, IsItsOwnersOnlyAndGoesWithIt) {
  {
    const auto socket = open();
    ASSERT_TRUE(socket.ok()) << socket.error().message();
    struct stat found{};
    ASSERT_EQ(::stat(path_.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 0777, 0600u);
    EXPECT_EQ(socket.value().address().text(), "unix:" + path_);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(UnixSocketTest, AFileThatADeadServerLeftIsReplaced) {
  {
    auto dead = open();
    ::close(dead.value().release());
    std::filesystem::rename(path_, path_ + ".kept");
  }
  std::filesystem::rename(path_ + ".kept", path_);
  EXPECT_TRUE(open().ok());
}

TEST_F(UnixSocketTest, ALiveServersSocketAndOtherFilesAreLeftAlone) {
  {
    const auto first = open();
    const auto second = open();
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().code(), Code::kUnavailable);
    EXPECT_THAT(second.error().message(), HasSubstr("another program listens on it"));
    EXPECT_TRUE(std::filesystem::exists(path_));
  }
  write_file_atomic(path_, "precious");
  EXPECT_THAT(open().error().message(), HasSubstr("no socket"));
  EXPECT_EQ(read_file(path_, 100).value(), "precious");
}

TEST_F(UnixSocketTest, APathThatIsTooLongIsAnError) {
  const auto socket = ListenSocket::open({"", 0, false, "/" + std::string(200, 'x')}, "management_address");
  EXPECT_EQ(socket.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(socket.error().message(), HasSubstr("key 'management_address': a socket's path has at most 107 bytes"));
}

TEST(TcpSocket, TellsThePortThatWasTaken) {
  const auto socket = ListenSocket::open({"127.0.0.1", 0}, "inference_address");
  ASSERT_TRUE(socket.ok()) << socket.error().message();
  EXPECT_GT(socket.value().address().port, 0);
  const auto second = ListenSocket::open({"127.0.0.1", socket.value().address().port}, "inference_address");
  EXPECT_THAT(second.error().message(), HasSubstr("Address already in use"));
  EXPECT_FALSE(ListenSocket::open({"no.such.host.invalid", 0}, "inference_address").ok());
}

}  // namespace
}  // namespace penstock::rpc
