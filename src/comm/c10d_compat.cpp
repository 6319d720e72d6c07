#include "comm/c10d_compat.h"

#include <ATen/ATen.h>

#include <stdexcept>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/clock.h"

namespace penstock::comm::compat {
namespace {

class PollingStore : public ::c10d::Store {
 public:
  explicit PollingStore(StorePtr inner) : inner_(std::move(inner)) {}
  void set(const std::string& key, const std::vector<uint8_t>& value) override { inner_->set(key, value); }
  std::vector<uint8_t> get(const std::string& key) override {
    wait({key}, timeout_);
    return inner_->get(key);
  }
  int64_t add(const std::string& key, int64_t value) override { return inner_->add(key, value); }
  bool deleteKey(const std::string& key) override { return inner_->deleteKey(key); }
  bool check(const std::vector<std::string>& keys) override { return inner_->check(keys); }
  int64_t getNumKeys() override { return inner_->getNumKeys(); }
  void wait(const std::vector<std::string>& keys) override { wait(keys, timeout_); }
  void wait(const std::vector<std::string>& keys, const std::chrono::milliseconds& timeout) override {
    const Deadline deadline = Deadline::after(timeout);
    while (!inner_->check(keys)) {
      if (deadline.passed()) throw std::runtime_error("a key was not in the store in time");
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
  c10::intrusive_ptr<::c10d::Store> clone() { return c10::make_intrusive<PollingStore>(inner_); }  // overrides since 2.8

 private:
  const StorePtr inner_;
};

}  // namespace

StorePtr make_tcp_store(const std::string& host, int port, bool is_server, std::chrono::milliseconds timeout) {
  ::c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.isServer = is_server;
  options.waitWorkers = false;  // who is missing is found out, and said, by the caller
  options.timeout = timeout;
  auto store = c10::make_intrusive<::c10d::TCPStore>(host, options);
  store->setTimeout(timeout);
  return store;
}

StorePtr make_prefix_store(const std::string& prefix, const StorePtr& store) {
  return c10::make_intrusive<::c10d::PrefixStore>(prefix, store);
}

StorePtr make_polling_store(const StorePtr& store) { return c10::make_intrusive<PollingStore>(store); }

void store_set(::c10d::Store& store, const std::string& key, const std::string& value) {
  store.set(key, std::vector<uint8_t>(value.begin(), value.end()));
}

std::optional<std::string> store_try_get(::c10d::Store& store, const std::string& key) {
  if (!store.check({key})) return std::nullopt;  // get() waits for a key that is absent
  const std::vector<uint8_t> value = store.get(key);
  return std::string(value.begin(), value.end());
}

DevicePtr make_device(const std::string& interface, const std::string& address) {
  if (!interface.empty()) return ::c10d::ProcessGroupGloo::createDeviceForInterface(interface);
  return ::c10d::ProcessGroupGloo::createDeviceForHostname(address);
}

BackendPtr make_gloo(const StorePtr& store, int rank, int size, const DevicePtr& device, std::chrono::milliseconds timeout) {
  auto options = ::c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(device);
  options->threads = 1;  // they run collectives, of which there are none
  return c10::make_intrusive<::c10d::ProcessGroupGloo>(store, rank, size, options);
}

// Neither version can abort a group from outside. But a receive that runs into its timeout closes every connection of its group, so
// one that nobody will ever send to does it.
void close_connections(Backend& backend, int rank, int size) {
  constexpr int kUnusedTag = 0x7fffffff;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    try {
      std::vector<at::Tensor> nothing = {at::empty({1}, at::kByte)};
      backend.recv(nothing, peer, kUnusedTag)->wait(std::chrono::milliseconds(1));
    } catch (const std::exception&) {  // the timeout, or a connection that is closed already
    }
  }
}

std::string error_text(const std::exception_ptr& failure) {
  std::string text;
  try {
    std::rethrow_exception(failure);
  } catch (const c10::Error& error) {
    text = error.what_without_backtrace();
  } catch (const std::exception& error) {
    text = error.what();
  } catch (...) {
    text = "unknown exception";
  }
  const size_t end = text.find("\nException raised from");
  if (end != std::string::npos) text.resize(end);
  while (text.starts_with("[")) {  // "[enforce fail at ../pair.cc:598] ", "[../gloo/transport/tcp/pair.cc:598] "
    const size_t close = text.find("] ");
    if (close == std::string::npos) break;
    text.erase(0, close + 2);
  }
  return text;
}

}  // namespace penstock::comm::compat
