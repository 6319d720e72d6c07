#include "rpc/ts_connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"

namespace penstock::rpc {
namespace {

constexpr milliseconds kLookUp{100};  // how often a wait looks whether end() was called

bool would_block(int number) { return number == EAGAIN || number == EWOULDBLOCK || number == EINTR; }

// -1: nobody listens there yet.
int connect_to(const std::filesystem::path& socket) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = socket.string();
  if (path.size() >= sizeof address.sun_path) return -1;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

}  // namespace

TsConnection::TsConnection(std::vector<std::filesystem::path> sockets) : sockets_(std::move(sockets)) {}

TsConnection::~TsConnection() {
  for (const int fd : fds_) ::close(fd);
}

bool TsConnection::connect() {
  while (fds_.size() < sockets_.size()) {
    const int fd = connect_to(sockets_[fds_.size()]);
    if (fd < 0) return false;
    fds_.push_back(fd);
  }
  return true;
}

std::optional<Error> TsConnection::send(size_t rank, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fds_.at(rank), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) bytes.remove_prefix(static_cast<size_t>(sent));
    else if (!would_block(errno)) return lost(rank, std::strerror(errno));
    else if (auto gone = wait(rank, POLLOUT)) return gone;
  }
  return std::nullopt;
}

Result<std::string> TsConnection::read(size_t rank, size_t count) {
  std::string bytes;  // grows as bytes come: a length that lies costs nothing
  while (bytes.size() < count) {
    char piece[65536];
    const ssize_t got = ::recv(fds_.at(rank), piece, std::min(sizeof piece, count - bytes.size()), 0);
    if (got > 0) bytes.append(piece, static_cast<size_t>(got));
    else if (got == 0) return lost(rank, "it was closed");
    else if (!would_block(errno)) return lost(rank, std::strerror(errno));
    else if (auto gone = wait(rank, POLLIN)) return *gone;
  }
  return bytes;
}

// Until the rank's socket can be used; what the others say meanwhile is thrown away, if it is time for that.
std::optional<Error> TsConnection::wait(size_t rank, short events) {
  std::vector<pollfd> wanted;
  for (size_t other = 0; other < fds_.size(); ++other) {
    const bool is_heard = first_only_ && other > 0;
    const auto what = static_cast<short>((other == rank ? events : 0) | (is_heard ? POLLIN : 0));
    wanted.push_back({.fd = what != 0 ? fds_[other] : -1, .events = what, .revents = 0});  // poll passes over -1
  }
  while (!ended_) {
    if (::poll(wanted.data(), wanted.size(), static_cast<int>(kLookUp.count())) <= 0) continue;
    for (size_t other = 1; other < wanted.size() && first_only_; ++other) {
      if ((wanted[other].revents & ~POLLOUT) == 0) continue;
      if (auto gone = discard(other)) return gone;
    }
    if ((wanted[rank].revents & (events | POLLERR | POLLHUP)) != 0) return std::nullopt;
  }
  return Error(Code::kUnavailable, "the Python worker is being stopped");
}

std::optional<Error> TsConnection::discard(size_t rank) {
  char piece[65536];
  for (;;) {
    const ssize_t got = ::recv(fds_[rank], piece, sizeof piece, 0);
    if (got > 0) continue;
    if (got == 0) return lost(rank, "it was closed");
    return would_block(errno) ? std::nullopt : std::optional(lost(rank, std::strerror(errno)));
  }
}

Error TsConnection::lost(size_t rank, std::string_view how) const {
  const std::string whose = sockets_.size() > 1 ? fmt::format("rank {} of the Python worker", rank) : "the Python worker";
  return error(Code::kUnavailable, "the connection to {} is lost: {}", whose, how);
}

}  // namespace penstock::rpc
