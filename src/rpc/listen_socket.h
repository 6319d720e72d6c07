#pragma once
// A socket that listens: TCP, or a unix socket in a file.
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "base/error.h"
#include "config/http_address.h"

namespace penstock::rpc {

// Owns the socket and, of a unix socket, the file, which the destructor removes if it is still this one. Movable.
//
// Modes: a socket file is its owner's only (0600) from the moment it exists; who wants to share it changes its mode, or its folder's.
class ListenSocket {
 public:
  // A file that a dead server left is replaced; one that somebody listens on, and a file that is no socket, are not.
  // `key`: of config.properties, for messages. kUnavailable with the system's reason; kInvalidArgument for a path that is too long.
  [[nodiscard]] static Result<ListenSocket> open(const config::HttpAddress& address, const char* key);
  ListenSocket(ListenSocket&& other) noexcept;
  ListenSocket& operator=(ListenSocket&&) = delete;
  ~ListenSocket();

  [[nodiscard]] int family() const { return family_; }
  // The caller owns it from now on.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  // With the port that was taken.
  [[nodiscard]] const config::HttpAddress& address() const { return address_; }

 private:
  explicit ListenSocket(config::HttpAddress address) : address_(std::move(address)) {}
  [[nodiscard]] std::optional<Error> listen_tcp(const char* key);
  [[nodiscard]] std::optional<Error> listen_unix(const char* key);

  config::HttpAddress address_;
  int fd_ = -1;
  int family_ = 0;
  std::pair<uint64_t, uint64_t> file_id_;  // device and inode of the socket file; zeros = not made
};

}  // namespace penstock::rpc
