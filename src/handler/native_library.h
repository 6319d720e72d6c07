#pragma once
// A handler out of a shared library (native_handler.h), as the worker serves it.
#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/channel.h"
#include "base/mutex.h"
#include "handler/handler.h"
#include "handler/native_handler.h"

namespace penstock::handler {

struct NativeLibraryOptions {
  std::filesystem::path library;
  std::filesystem::path model_folder;
  std::string model;
  int max_concurrent = 1;
};

// Threads:  every method from any thread; max_concurrent threads of its own run the library's handle().
// Lifetime: the library stays loaded until the process ends. The destructor waits for handle() calls that run.
class NativeLibrary final : public Handler {
 public:
  // Blocks: loads the library, makes its handler. kInvalidArgument: not a library, not one of ours, of another ABI version, or its
  // constructor throws.
  [[nodiscard]] static Result<std::unique_ptr<NativeLibrary>> open(const NativeLibraryOptions& options);
  ~NativeLibrary() override;

  [[nodiscard]] HandlerInfo info() const override;
  [[nodiscard]] Result<RequestId> submit(Request request, std::shared_ptr<AnswerSink> sink) override EXCLUDES(mutex_);
  void cancel(RequestId id) override EXCLUDES(mutex_);
  void drain() override;

 private:
  struct Task;
  NativeLibrary(const NativeLibraryOptions& options, std::unique_ptr<native::Handler> handler);
  void work() EXCLUDES(mutex_);
  void run(Task& task);

  const NativeLibraryOptions options_;
  const std::unique_ptr<native::Handler> handler_;
  std::atomic<bool> draining_{false};
  Mutex mutex_;
  RequestId next_id_ GUARDED_BY(mutex_) = 1;
  std::unordered_map<RequestId, std::shared_ptr<Task>> tasks_ GUARDED_BY(mutex_);  // that wait or run
  Channel<std::shared_ptr<Task>> waiting_;
  std::vector<std::thread> threads_;
};

}  // namespace penstock::handler
