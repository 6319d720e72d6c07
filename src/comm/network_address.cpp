#include "comm/network_address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "base/error.h"

namespace penstock::comm {
namespace {

class Socket {
 public:
  Socket(int family, int type) : fd_(::socket(family, type | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
};

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

// `failed`: getaddrinfo's answer; no address unless it is 0.
Addresses resolve(const std::string& host, int port, int socket_type, int& failed) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = socket_type;
  addrinfo* found = nullptr;
  failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  return {failed == 0 ? found : nullptr, &::freeaddrinfo};
}

// 0, or the errno of connecting to `target`.
int connect_to(const addrinfo& target, Deadline deadline) {
  const Socket socket(target.ai_family, SOCK_STREAM | SOCK_NONBLOCK);
  if (socket.fd() < 0) return errno;
  if (::connect(socket.fd(), target.ai_addr, target.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd writable{.fd = socket.fd(), .events = POLLOUT, .revents = 0};
  const auto timeout = std::min<milliseconds>(deadline.remaining(), std::chrono::hours(1));
  if (::poll(&writable, 1, static_cast<int>(timeout.count())) != 1) return ETIMEDOUT;
  int failure = 0;
  socklen_t length = sizeof failure;
  return ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &failure, &length) == 0 ? failure : errno;
}

// Connecting a datagram socket sends nothing; it makes the system choose the route and so the source address.
bool source_address(const addrinfo& target, std::string& address) {
  const Socket socket(target.ai_family, SOCK_DGRAM);
  sockaddr_storage local{};
  socklen_t length = sizeof local;
  if (socket.fd() < 0 || ::connect(socket.fd(), target.ai_addr, target.ai_addrlen) != 0 ||
      ::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&local), &length) != 0) {
    return false;
  }
  char text[NI_MAXHOST];
  if (::getnameinfo(reinterpret_cast<sockaddr*>(&local), length, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) return false;
  address = text;
  return true;
}

// The inodes of sockets that listen on `port`: lines of /proc/net/tcp with state 0A (man 5 proc).
std::vector<std::string> listening_sockets(int port) {
  std::vector<std::string> inodes;
  for (const char* table : {"/proc/net/tcp", "/proc/net/tcp6"}) {
    std::ifstream lines(table);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream fields(line);
      std::string slot, local, remote, state, skipped, inode;
      fields >> slot >> local >> remote >> state;
      for (int i = 0; i < 5; ++i) fields >> skipped;  // queues, timer, retransmits, user, timeout
      if (fields >> inode && state == "0A" && local.ends_with(fmt::format(":{:04X}", port))) inodes.push_back(inode);
    }
  }
  return inodes;
}

}  // namespace

std::string local_address_towards(const std::string& host, int port) {
  int failed = 0;
  const Addresses targets = resolve(host, port, SOCK_DGRAM, failed);
  if (failed != 0) throw error(Code::kInvalidArgument, "cannot resolve the host '{}' (MASTER_ADDR): {}", host, ::gai_strerror(failed));
  std::string address;
  for (const addrinfo* target = targets.get(); target != nullptr; target = target->ai_next) {
    if (source_address(*target, address)) return address;
  }
  throw error(Code::kUnavailable, "no route to the host '{}' (MASTER_ADDR): {}", host, std::strerror(errno));
}

Listener probe_listener(const std::string& host, int port, Deadline deadline) {
  int failed = 0;
  const Addresses targets = resolve(host, port, SOCK_STREAM, failed);
  bool all_refused = failed == 0;
  for (const addrinfo* target = targets.get(); target != nullptr; target = target->ai_next) {
    const int failure = connect_to(*target, deadline);
    if (failure == 0) return Listener::kPresent;
    all_refused = all_refused && failure == ECONNREFUSED;
  }
  return all_refused ? Listener::kAbsent : Listener::kUnknown;
}

bool is_loopback_address(const std::string& address) { return address.starts_with("127.") || address == "::1"; }

bool has_interface(const std::string& name) { return ::if_nametoindex(name.c_str()) != 0; }

std::string list_interfaces() {
  std::string names;
  struct if_nameindex* all = ::if_nameindex();
  for (auto* next = all; next != nullptr && next->if_index != 0; ++next) names += fmt::format("{}{}", names.empty() ? "" : ", ", next->if_name);
  if (all != nullptr) ::if_freenameindex(all);
  return names;
}

std::string describe_listener(int port) {
  for (const std::string& inode : listening_sockets(port)) {
    std::error_code failed;
    for (const auto& process : std::filesystem::directory_iterator("/proc", failed)) {
      const std::string pid = process.path().filename();
      if (pid.empty() || pid.find_first_not_of("0123456789") != std::string::npos) continue;
      for (const auto& file : std::filesystem::directory_iterator(process.path() / "fd", failed)) {
        if (std::filesystem::read_symlink(file.path(), failed) != "socket:[" + inode + "]") continue;
        std::string program;
        std::getline(std::ifstream(process.path() / "comm"), program);
        return fmt::format("process {} ({})", pid, program);
      }
    }
  }
  return "another process";
}

int find_free_port() {
  const Socket socket(AF_INET, SOCK_STREAM);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (socket.fd() < 0 || ::bind(socket.fd(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw error(Code::kUnavailable, "cannot find a free port: {}", std::strerror(errno));
  }
  return ntohs(address.sin_port);
}

}  // namespace penstock::comm
