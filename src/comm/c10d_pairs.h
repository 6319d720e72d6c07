#pragma once
// The connections of one group: one for each pair of its ranks that talk, made when they first do. Internal to the c10d_*.cpp files.
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "comm/c10d_network.h"

namespace penstock::comm {

// A message on its way to Gloo, which takes it once its pair is connected.
class PostedMessage {
 public:
  void take(c10::intrusive_ptr<::c10d::Work> work) EXCLUDES(mutex_);
  void fail(const std::string& text) EXCLUDES(mutex_);
  // Gloo's work; null at the deadline. Throws std::runtime_error when it came to nothing.
  [[nodiscard]] c10::intrusive_ptr<::c10d::Work> wait(Deadline deadline) EXCLUDES(mutex_);
  // False while it waits for the connection.
  [[nodiscard]] bool settled() EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  CondVar changed_;
  c10::intrusive_ptr<::c10d::Work> work_ GUARDED_BY(mutex_);
  std::optional<std::string> failure_ GUARDED_BY(mutex_);
};
using PostedPtr = std::shared_ptr<PostedMessage>;

// Threads:  any. A thread for each pair while it is being connected: connecting blocks until the other side does the same, and callers must not.
// Sockets:  one a pair, for both directions, and none for pairs that never talk.
// Failure:  close() ends all connections, so that whatever is pending fails here and on the peers, and says so in the store for those who are not connected.
class PairLinks {
 public:
  PairLinks(std::shared_ptr<const Network> network, compat::StorePtr store, int rank, int size);
  ~PairLinks();
  PairLinks(const PairLinks&) = delete;
  PairLinks& operator=(const PairLinks&) = delete;

  // Never block. Messages of a (peer, tag) keep their order.
  [[nodiscard]] PostedPtr send(const at::Tensor& tensor, int to, int tag);
  [[nodiscard]] PostedPtr recv(const at::Tensor& tensor, int from, int tag);
  void close() EXCLUDES(mutex_);
  // This rank or another has closed the group; with `peer`, or that one has left it. Asks the store; true also when that is gone.
  [[nodiscard]] bool given_up(int peer = -1) EXCLUDES(mutex_);

 private:
  struct Pair;
  using Launch = std::function<c10::intrusive_ptr<::c10d::Work>(compat::Backend& backend, int other)>;
  PostedPtr post(int peer, Launch launch) EXCLUDES(mutex_);
  void connect(int peer) EXCLUDES(mutex_);
  [[nodiscard]] compat::BackendPtr open(int peer);

  const std::shared_ptr<const Network> network_;
  const compat::StorePtr store_;  // of the group
  const int rank_;
  Mutex mutex_;
  std::vector<std::unique_ptr<Pair>> pairs_;  // by peer; their fields are guarded by mutex_
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace penstock::comm
