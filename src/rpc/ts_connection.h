#pragma once
// The unix sockets of one Python worker: one for each of its ranks. Internal to ts_worker_client.
#include <atomic>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::rpc {

// Threads: one; end() from any.
// Blocks:  send() and read(), until done, until a rank's connection is lost, or until end(): the caller's startup and response timeouts end the worker.
class TsConnection {
 public:
  // `sockets`: by rank.
  explicit TsConnection(std::vector<std::filesystem::path> sockets);
  ~TsConnection();
  TsConnection(const TsConnection&) = delete;
  TsConnection& operator=(const TsConnection&) = delete;

  // false: a rank does not listen yet; to be called again.
  [[nodiscard]] bool connect();
  [[nodiscard]] size_t num_ranks() const { return sockets_.size(); }
  [[nodiscard]] std::optional<Error> send(size_t rank, std::string_view bytes);
  [[nodiscard]] Result<std::string> read(size_t rank, size_t count);
  // From now on what ranks but the first say is thrown away while another one is waited for: older workers answer from every rank, and must not block
  // on it while the first one needs them.
  void hear_first_only() { first_only_ = true; }
  // Every call fails from now on.
  void end() { ended_ = true; }

 private:
  [[nodiscard]] std::optional<Error> wait(size_t rank, short events);
  [[nodiscard]] std::optional<Error> discard(size_t rank);
  [[nodiscard]] Error lost(size_t rank, std::string_view how) const;

  const std::vector<std::filesystem::path> sockets_;
  std::vector<int> fds_;  // of the ranks that are connected, the first ones
  bool first_only_ = false;
  std::atomic<bool> ended_{false};
};

}  // namespace penstock::rpc
