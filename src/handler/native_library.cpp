#include "handler/native_library.h"

#include <dlfcn.h>

#include <exception>
#include <utility>

namespace penstock::handler {
namespace {

// The front door hands out max_concurrent requests at once; a cancelled one may still hold its thread for a while.
constexpr size_t kWaitingPerThread = 4;

// What the library's handle() sees of a request.
class LentRequest final : public native::Request {
 public:
  LentRequest(const handler::Request& request, const std::atomic<bool>& cancelled) : request_(request), cancelled_(cancelled) {}
  std::string_view id() const override { return request_.id; }
  std::size_t num_parts() const override { return request_.parts.size(); }
  native::Part part(std::size_t i) const override {
    const Part& part = request_.parts.at(i);
    return {part.name, part.content_type, part.bytes};
  }
  std::size_t num_headers() const override { return request_.headers.size(); }
  native::Header header(std::size_t i) const override { return {request_.headers.at(i).first, request_.headers.at(i).second}; }
  bool cancelled() const override { return cancelled_.load(std::memory_order_relaxed); }

 private:
  const handler::Request& request_;
  const std::atomic<bool>& cancelled_;
};

class LentAnswer final : public native::Answer {
 public:
  explicit LentAnswer(AnswerSink& sink) : sink_(sink) {}
  void set_status(int status) override { head_.status = status; }
  void set_content_type(std::string_view content_type) override { head_.content_type = content_type; }
  void add_header(std::string_view name, std::string_view value) override { head_.headers.emplace_back(name, value); }
  bool send(std::string_view bytes) override { return push(std::string(bytes), /*last=*/false); }
  void finish(std::string_view bytes) override { (void)push(std::string(bytes), /*last=*/true); }

  void finish_if_open() { (void)push("", /*last=*/true); }
  void fail(const char* what) {
    if (!begun_) {
      head_ = {500, "text/plain", {}};
      return finish(what);
    }
    if (std::exchange(finished_, true)) return;
    (void)sink_.push({std::nullopt, "", true, error(Code::kInternal, "the handler failed: {}", what)});
  }

 private:
  bool push(std::string bytes, bool last) {
    if (finished_) return false;
    finished_ = last;
    AnswerEvent event{std::nullopt, std::move(bytes), last, std::nullopt};
    if (!std::exchange(begun_, true)) event.head = std::move(head_);
    return sink_.push(std::move(event));
  }

  AnswerSink& sink_;
  AnswerHead head_;
  bool begun_ = false;
  bool finished_ = false;
};

// A function of the library; null: it has none of that name.
template <typename Function>
Function* symbol(void* library, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(library, name));
}

Result<std::unique_ptr<native::Handler>> make_handler(const NativeLibraryOptions& options) {
  const std::string file = options.library.string();
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return error(Code::kInvalidArgument, "the handler {} cannot be loaded: {}", file, ::dlerror());
  auto* abi = symbol<std::uint32_t()>(library, "penstock_handler_abi");
  auto* make = symbol<native::Handler*(const native::Model&)>(library, "penstock_make_handler");
  if (!abi || !make) {
    return error(Code::kInvalidArgument, "{} is not a handler: it lacks {}; end its source with PENSTOCK_HANDLER(Class) (handler/native_handler.h)",
                 file, abi ? "penstock_make_handler" : "penstock_handler_abi");
  }
  if (const auto version = abi(); version != native::kAbiVersion) {
    return error(Code::kInvalidArgument, "the handler {} was compiled for ABI version {}, this worker has {}; compile it again with this "
                 "version's handler/native_handler.h", file, version, native::kAbiVersion);
  }
  const std::string folder = options.model_folder.string();
  try {
    std::unique_ptr<native::Handler> handler(make({options.model, folder, options.max_concurrent}));
    if (handler) return handler;
    return error(Code::kInvalidArgument, "the handler {} made nothing", file);
  } catch (const std::exception& failure) {
    return error(Code::kInvalidArgument, "the handler {} cannot load its model: {}", file, failure.what());
  }
}

}  // namespace

struct NativeLibrary::Task {
  RequestId id = 0;
  Request request;
  std::shared_ptr<AnswerSink> sink;
  std::atomic<bool> cancelled{false};
};

Result<std::unique_ptr<NativeLibrary>> NativeLibrary::open(const NativeLibraryOptions& options) {
  auto handler = make_handler(options);
  if (!handler) return handler.error();
  return std::unique_ptr<NativeLibrary>(new NativeLibrary(options, std::move(*handler)));
}

NativeLibrary::NativeLibrary(const NativeLibraryOptions& options, std::unique_ptr<native::Handler> handler)
    : options_(options), handler_(std::move(handler)), waiting_(kWaitingPerThread * static_cast<size_t>(options.max_concurrent)) {
  for (int i = 0; i < options.max_concurrent; ++i) threads_.emplace_back([this] { work(); });
}

NativeLibrary::~NativeLibrary() {
  {
    MutexLock lock(mutex_);
    for (const auto& [id, task] : tasks_) task->cancelled = true;
  }
  waiting_.close();
  for (std::thread& thread : threads_) thread.join();
}

HandlerInfo NativeLibrary::info() const { return {options_.library.filename().string(), options_.max_concurrent}; }

Result<RequestId> NativeLibrary::submit(Request request, std::shared_ptr<AnswerSink> sink) {
  if (draining_) return Error(Code::kUnavailable, "the handler is stopping");
  auto task = std::make_shared<Task>();
  task->request = std::move(request);
  task->sink = std::move(sink);
  RequestId id = 0;
  {
    MutexLock lock(mutex_);
    id = task->id = next_id_++;
    tasks_.emplace(id, task);
  }
  if (waiting_.try_put(std::move(task)) == Put::kDone) return id;
  MutexLock lock(mutex_);
  tasks_.erase(id);
  return Error(Code::kResourceExhausted, "the handler's threads are busy with requests that were cancelled; try again later");
}

void NativeLibrary::cancel(RequestId id) {
  MutexLock lock(mutex_);
  const auto found = tasks_.find(id);
  if (found != tasks_.end()) found->second->cancelled = true;
}

void NativeLibrary::drain() { draining_ = true; }

void NativeLibrary::work() {
  while (auto task = waiting_.take(Deadline::never())) {
    run(**task);
    MutexLock lock(mutex_);
    tasks_.erase((*task)->id);
  }
}

void NativeLibrary::run(Task& task) {
  LentAnswer answer(*task.sink);
  if (!task.cancelled) {
    try {
      handler_->handle(LentRequest(task.request, task.cancelled), answer);
    } catch (const std::exception& failure) {
      return answer.fail(failure.what());
    }
  }
  answer.finish_if_open();
}

}  // namespace penstock::handler
