#include "comm/c10d_pairs.h"

#include <algorithm>
#include <deque>
#include <stdexcept>

#include "base/error.h"

namespace penstock::comm {
namespace {

constexpr const char* kFailedKey = "failed";
std::string left_key(int rank) { return fmt::format("left/{}", rank); }

// For those who look; nobody does when the store is gone.
void say(::c10d::Store& store, const std::string& key) {
  try {
    compat::store_set(store, key, "1");
  } catch (const std::exception&) {
  }
}

}  // namespace

void PostedMessage::take(c10::intrusive_ptr<::c10d::Work> work) {
  MutexLock lock(mutex_);
  work_ = std::move(work);
  changed_.notify_all();
}

void PostedMessage::fail(const std::string& text) {
  MutexLock lock(mutex_);
  failure_ = text;
  changed_.notify_all();
}

c10::intrusive_ptr<::c10d::Work> PostedMessage::wait(Deadline deadline) {
  MutexLock lock(mutex_);
  while (!work_ && !failure_) {
    if (!changed_.wait(mutex_, deadline) && !work_ && !failure_) return {};
  }
  if (failure_) throw std::runtime_error(*failure_);
  return work_;
}

bool PostedMessage::settled() {
  MutexLock lock(mutex_);
  return work_ || failure_;
}

struct PairLinks::Pair {
  struct Waiting {
    Launch launch;
    PostedPtr message;
  };
  compat::BackendPtr backend;     // once connected
  std::deque<Waiting> waiting;    // for that
  std::optional<std::string> failure;
  std::thread connector;
};

PairLinks::PairLinks(std::shared_ptr<const Network> network, compat::StorePtr store, int rank, int size)
    : network_(std::move(network)), store_(std::move(store)), rank_(rank) {
  for (int peer = 0; peer < size; ++peer) pairs_.push_back(std::make_unique<Pair>());
}

PairLinks::~PairLinks() {
  say(*store_, left_key(rank_));
  {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  for (const auto& pair : pairs_) {
    if (pair->connector.joinable()) pair->connector.join();
  }
}

PostedPtr PairLinks::send(const at::Tensor& tensor, int to, int tag) {
  return post(to, [tensor, tag](compat::Backend& backend, int other) {
    std::vector<at::Tensor> tensors = {tensor};
    return backend.send(tensors, other, tag);
  });
}

PostedPtr PairLinks::recv(const at::Tensor& tensor, int from, int tag) {
  return post(from, [tensor, tag](compat::Backend& backend, int other) {
    std::vector<at::Tensor> tensors = {tensor};
    return backend.recv(tensors, other, tag);
  });
}

PostedPtr PairLinks::post(int peer, Launch launch) {
  auto message = std::make_shared<PostedMessage>();
  Pair& pair = *pairs_[static_cast<size_t>(peer)];
  MutexLock lock(mutex_);
  if (closed_ || pair.failure) {
    message->fail(pair.failure.value_or("the group is closed"));
  } else if (pair.backend && pair.waiting.empty()) {
    try {
      message->take(launch(*pair.backend, rank_ < peer ? 1 : 0));
    } catch (const std::exception&) {
      message->fail(compat::error_text(std::current_exception()));
    }
  } else {
    pair.waiting.push_back({std::move(launch), message});
    if (!pair.connector.joinable()) pair.connector = std::thread([this, peer] { connect(peer); });
  }
  return message;
}

// On the pair's own thread. What has been posted meanwhile is handed over in its order.
void PairLinks::connect(int peer) {
  Pair& pair = *pairs_[static_cast<size_t>(peer)];
  compat::BackendPtr backend;
  std::string failure;
  try {
    backend = open(peer);
  } catch (const std::exception&) {
    failure = fmt::format("no connection to rank {}: {}", peer, compat::error_text(std::current_exception()));
  }
  MutexLock lock(mutex_);
  if (backend && closed_) failure = "the group is closed";
  if (backend && closed_) compat::close_connections(*backend, rank_ < peer ? 0 : 1, 2);
  if (!failure.empty()) pair.failure = failure;
  pair.backend = backend;
  for (; !pair.waiting.empty(); pair.waiting.pop_front()) {
    Pair::Waiting& next = pair.waiting.front();
    try {
      if (pair.failure) throw std::runtime_error(*pair.failure);
      next.message->take(next.launch(*backend, rank_ < peer ? 1 : 0));
    } catch (const std::exception&) {
      next.message->fail(compat::error_text(std::current_exception()));
    }
  }
}

// Both meet first, which can be given up; Gloo's own wait cannot, and is short then.
compat::BackendPtr PairLinks::open(int peer) {
  const int low = std::min(rank_, peer), high = std::max(rank_, peer), own = rank_ == low ? 0 : 1;
  const compat::StorePtr store = compat::make_prefix_store(fmt::format("pair/{}-{}", low, high), compat::make_polling_store(store_));
  (void)exchange_texts({.store = *store, .key = "here", .group = fmt::format("{}-{}", low, high), .store_address = network_->store_address, .rank = own, .size = 2,
                        .deadline = Deadline::after(network_->options.operation_timeout), .speaks = false, .given_up = [this, peer](int /*rank*/) { return given_up(peer); }}, "");
  return compat::make_gloo(store, own, 2, network_->device, std::min<milliseconds>(network_->options.connect_timeout, seconds(30)));
}

bool PairLinks::given_up(int peer) {
  {
    MutexLock lock(mutex_);
    if (closed_) return true;
  }
  try {
    return store_->check({kFailedKey}) || (peer >= 0 && store_->check({left_key(peer)}));
  } catch (const std::exception&) {
    return true;
  }
}

void PairLinks::close() {
  say(*store_, kFailedKey);
  MutexLock lock(mutex_);
  if (closed_) return;
  closed_ = true;
  for (size_t peer = 0; peer < pairs_.size(); ++peer) {
    if (pairs_[peer]->backend) compat::close_connections(*pairs_[peer]->backend, rank_ < static_cast<int>(peer) ? 0 : 1, 2);
  }
}

}  // namespace penstock::comm
