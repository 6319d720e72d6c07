#pragma once
// All that differs between the c10d of LibTorch 1.13 and of 2.x. For the c10d_*.cpp files, liveness.cpp and
// bench/allreduce_bench.cpp only: fat headers.
#include <torch/version.h>

#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace penstock::comm::compat {

// What runs collectives and messages: since 2.0 a ProcessGroup is a dispatcher in front of a Backend.
#if TORCH_VERSION_MAJOR >= 2
using Backend = ::c10d::Backend;
#else
using Backend = ::c10d::ProcessGroup;
#endif
using BackendPtr = c10::intrusive_ptr<Backend>;
using StorePtr = c10::intrusive_ptr<::c10d::Store>;
using DevicePtr = std::shared_ptr<::gloo::transport::Device>;

// A key-value store over TCP; `is_server` holds it in this process, on `port` of every interface. Returns when connected.
// `timeout` is for connecting, and for every later wait of this client. Throws c10::Error.
[[nodiscard]] StorePtr make_tcp_store(const std::string& host, int port, bool is_server, std::chrono::milliseconds timeout);
[[nodiscard]] StorePtr make_prefix_store(const std::string& prefix, const StorePtr& store);

// The same store, whose waits look every few milliseconds instead of keeping the connection to themselves: for several threads.
[[nodiscard]] StorePtr make_polling_store(const StorePtr& store);

void store_set(::c10d::Store& store, const std::string& key, const std::string& value);
// nullopt when there is no such key.
[[nodiscard]] std::optional<std::string> store_try_get(::c10d::Store& store, const std::string& key);

// The network device of all groups of a process: one I/O thread. `interface` wins over `address` when not empty.
[[nodiscard]] DevicePtr make_device(const std::string& interface, const std::string& address);

// Connects to all ranks of the group; all of them must call it. `timeout` bounds connecting, and each later collective.
[[nodiscard]] BackendPtr make_gloo(const StorePtr& store, int rank, int size, const DevicePtr& device, std::chrono::milliseconds timeout);

// Closes all connections of the group, so that whatever is pending in it fails now, here and on its peers. Never throws.
void close_connections(Backend& backend, int rank, int size);

// The message without the C++ stack trace and source position that LibTorch and Gloo put around it.
[[nodiscard]] std::string error_text(const std::exception_ptr& failure);

}  // namespace penstock::comm::compat
