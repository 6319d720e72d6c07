#pragma once
// What answers requests of bytes inside a worker, as the RPC layer sees it: the counterpart of engine/engine.h. Torch-free.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "handler/request.h"

namespace penstock::handler {

// One message of an answer. The first one has a head; exactly one has last = true, and nothing follows it.
struct AnswerEvent {
  std::optional<AnswerHead> head;
  std::string bytes;
  bool last = false;
  std::optional<Error> failure;  // only with last: there is no answer, or it breaks off; head and bytes do not count
};

// Where an answer's events go. Called from the handler's threads, or from within submit(); never blocks.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  // false: the reader is gone or too slow; the handler drops the request and sends nothing more.
  [[nodiscard]] virtual bool push(AnswerEvent event) = 0;
};

using RequestId = uint64_t;

struct HandlerInfo {
  std::string name;        // for descriptions, e.g. "torchscript"
  int max_concurrent = 1;  // requests that it takes at once
};

// Threads: every method may be called from any thread and answers at once.
class Handler {
 public:
  virtual ~Handler() = default;
  [[nodiscard]] virtual HandlerInfo info() const = 0;
  // kInvalidArgument; kUnavailable when it has failed or is stopping.
  [[nodiscard]] virtual Result<RequestId> submit(Request request, std::shared_ptr<AnswerSink> sink) = 0;
  // The request stops costing compute as soon as may be. Unknown or finished ids are ignored.
  virtual void cancel(RequestId id) = 0;
  // Takes no new requests, finishes what runs.
  virtual void drain() = 0;
};

}  // namespace penstock::handler
