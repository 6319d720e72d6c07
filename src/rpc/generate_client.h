#pragma once
// A client of TorchServe's StreamPredictions, with plain types: what `penstock generate` calls.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"
#include "frontend/worker_client.h"
#include "rpc/client_channel.h"

namespace penstock::rpc {

struct StreamRequest {
  std::string model;
  std::string version;  // empty = the model's default
  std::string data;     // the value of the input key "data" (text/generation_request.h)
};

struct StreamSummary {
  int messages = 0;
  std::optional<Clock::duration> first_message;  // from the start of the call
  Clock::duration total{};
  std::optional<frontend::FinishedInfo> finished;  // when the server says it (Penstock does)
};

// One call. Threads: stream() once, from one thread; cancel() from any.
class GenerateClient {
 public:
  // Connects in stream().
  explicit GenerateClient(const ServerAddress& server);
  ~GenerateClient();

  // Hands out each message's text as it comes, until the end. Errors: kUnavailable when no server answers by the deadline
  // `connect_by`, else the server's own; kCancelled after cancel().
  [[nodiscard]] Result<StreamSummary> stream(const StreamRequest& request, Deadline connect_by,
                                             const std::function<void(std::string_view)>& on_text);
  // Ends stream() at once, also one that has not begun.
  void cancel();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::rpc
