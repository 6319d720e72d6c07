#include "comm/spawn_ranks.h"

#include <exception>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/local_communicator.h"

namespace penstock::comm {

void spawn_ranks(int size, const std::function<void(Communicator&)>& body) {
  const std::vector<std::unique_ptr<Communicator>> ranks = make_local_group(size);
  Mutex mutex;
  std::exception_ptr first_failure;  // guarded by mutex
  const auto run = [&](Communicator& communicator) {
    std::string text;
    try {
      body(communicator);
      return;
    } catch (const std::exception& failure) {
      text = failure.what();
      MutexLock lock(mutex);
      if (!first_failure) first_failure = std::current_exception();
    }
    poison_local_group(communicator, error(Code::kUnavailable, "rank {} failed: {}", communicator.rank(), text));
  };
  std::vector<std::thread> threads;
  for (const auto& communicator : ranks) threads.emplace_back([&run, &communicator] { run(*communicator); });
  for (std::thread& thread : threads) thread.join();
  if (first_failure) std::rethrow_exception(first_failure);
}

}  // namespace penstock::comm
