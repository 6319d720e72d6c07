#pragma once
// Every kind of Communicator, with ranks as threads: the local one, as it is and with all tensors copied as those of a GPU are, and c10d over loopback, with its ranks on
// one host, two on each, and apart.
#include <gtest/gtest.h>

#include <exception>
#include <functional>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/c10d_communicator.h"
#include "comm/network_address.h"
#include "comm/forwarding_communicator.h"
#include "comm/spawn_ranks.h"
#include "comm/staged_communicator.h"

namespace penstock::comm {

inline constexpr seconds kLong{60};

using Body = std::function<void(Communicator&)>;

// Like spawn_ranks, each thread with a c10d rank of its own. `ranks_per_host`: as if so many were on each machine; 0 = all on this one.
inline void spawn_c10d_ranks(int size, int ranks_per_host, const Body& body) {
  const int port = find_free_port();
  Mutex mutex;
  std::exception_ptr first_failure;
  std::vector<std::unique_ptr<Communicator>> ranks(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        C10dOptions options;
        options.connect_timeout = kLong;
        options.operation_timeout = kLong;
        if (ranks_per_host > 0) options.host = fmt::format("host {}", rank / ranks_per_host);
        ranks[static_cast<size_t>(rank)] = connect_c10d({rank, size, rank, size, "127.0.0.1", port}, options);
        body(*ranks[static_cast<size_t>(rank)]);
      } catch (...) {
        MutexLock lock(mutex);
        if (!first_failure) first_failure = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  while (!ranks.empty()) ranks.pop_back();  // rank 0, which holds the store, last
  if (first_failure) std::rethrow_exception(first_failure);
}

// Like spawn_ranks, and every tensor is copied to the host and back.
inline void spawn_staged_ranks(int size, const Body& body) {
  spawn_ranks(size, [&](Communicator& world) { body(*make_staged(std::make_unique<ForwardingCommunicator>(world), Staged::kAll)); });
}

class RanksOfAnyKind : public testing::TestWithParam<const char*> {
 protected:
  static void run(int size, const Body& body) {
    const std::string kind = GetParam();
    if (kind == "local") return spawn_ranks(size, body);
    if (kind == "staged") return spawn_staged_ranks(size, body);
    spawn_c10d_ranks(size, kind == "one_host" ? 0 : kind == "hosts_of_two" ? 2 : 1, body);
  }
  [[nodiscard]] static bool is(const char* kind) { return std::string(GetParam()) == kind; }
};

inline Deadline soon() { return Deadline::after(kLong); }

inline auto all_kinds() { return testing::Values("local", "staged", "one_host", "hosts_of_two", "hosts_of_one"); }

// The Error that `action` throws.
inline Error failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& failed) {
    return failed;
  }
  ADD_FAILURE() << "expected an Error";
  return {Code::kInternal, ""};
}

}  // namespace penstock::comm
