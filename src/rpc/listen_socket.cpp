#include "rpc/listen_socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace penstock::rpc {
namespace {

using FileId = std::pair<uint64_t, uint64_t>;

FileId id_of(const std::string& path) {
  struct stat found{};
  return ::lstat(path.c_str(), &found) == 0 ? FileId(found.st_dev, found.st_ino) : FileId();
}

Error refused(const config::HttpAddress& address, const char* key, const std::string& why) {
  return error(Code::kUnavailable, "cannot listen on {} (HTTP): {}; end the program that has it, or choose another with --set {}=http://HOST:PORT or unix:/PATH",
               address.text(), why, key);
}

// Whether nobody listens on a socket file any more.
bool is_stale(const sockaddr_un& name) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const bool stale = fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 && errno == ECONNREFUSED;
  if (fd >= 0) ::close(fd);
  return stale;
}

int port_of(int fd) {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  (void)::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &length);
  return ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(name).sin6_port : reinterpret_cast<sockaddr_in&>(name).sin_port);
}

}  // namespace

std::optional<Error> ListenSocket::listen_tcp(const char* key) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int failed = ::getaddrinfo(address_.host.c_str(), std::to_string(address_.port).c_str(), &hints, &found); failed != 0) {
    return refused(address_, key, ::gai_strerror(failed));
  }
  family_ = found->ai_family;
  fd_ = ::socket(family_, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  bool good = fd_ >= 0 && ::setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0;
  good = good && ::bind(fd_, found->ai_addr, found->ai_addrlen) == 0 && ::listen(fd_, SOMAXCONN) == 0;
  const int cause = errno;
  ::freeaddrinfo(found);
  if (!good) return refused(address_, key, std::strerror(cause));
  address_.port = port_of(fd_);
  return std::nullopt;
}

std::optional<Error> ListenSocket::listen_unix(const char* key) {
  const std::string& path = address_.unix_path;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.size() >= sizeof name.sun_path) {
    return error(Code::kInvalidArgument, "key '{}': a socket's path has at most {} bytes, found {}: {}", key, sizeof name.sun_path - 1, path.size(), path);
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  struct stat there{};
  if (::lstat(path.c_str(), &there) == 0) {
    if (!S_ISSOCK(there.st_mode)) return refused(address_, key, "there is a file that is no socket");
    if (!is_stale(name)) return refused(address_, key, "another program listens on it");
    (void)::unlink(path.c_str());
  }
  family_ = AF_UNIX;
  fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // The file gets the socket's own mode, so there is no moment at which others may connect.
  const bool bound = fd_ >= 0 && ::fchmod(fd_, 0600) == 0 && ::bind(fd_, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0;
  if (bound) file_id_ = id_of(path);
  if (!bound || ::listen(fd_, SOMAXCONN) != 0) return refused(address_, key, std::strerror(errno));
  return std::nullopt;
}

Result<ListenSocket> ListenSocket::open(const config::HttpAddress& address, const char* key) {
  ListenSocket socket(address);
  if (auto failure = address.unix_path.empty() ? socket.listen_tcp(key) : socket.listen_unix(key)) return *failure;
  return socket;
}

ListenSocket::ListenSocket(ListenSocket&& other) noexcept
    : address_(std::move(other.address_)), fd_(std::exchange(other.fd_, -1)), family_(other.family_), file_id_(std::exchange(other.file_id_, {})) {}

ListenSocket::~ListenSocket() {
  if (fd_ >= 0) ::close(fd_);
  if (file_id_ != FileId() && id_of(address_.unix_path) == file_id_) (void)::unlink(address_.unix_path.c_str());
}

}  // namespace penstock::rpc
