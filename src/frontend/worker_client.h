#pragma once
// A worker group as the front door sees it: a payload in, events out. rpc/ implements it over gRPC; tests implement it by hand.
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "handler/request.h"
#include "text/generation_request.h"
#include "text/token_logprob.h"

namespace penstock::frontend {

// What a client asks of a model: text of the handler `llm`, bytes of any other.
using Payload = std::variant<text::GenerationRequest, handler::Request>;

struct WorkerInfo {
  std::string architecture;      // e.g. "LlamaForCausalLM"; of a handler that takes bytes, its name
  int max_sequence_tokens = 0;   // 0: it takes bytes
  int max_concurrent = 0;        // requests that the group runs at once
  int num_stages = 0;
  milliseconds load_time{0};     // from the start of its processes; filled in by its group
};

// How a generation ended, in its last event.
struct FinishedInfo {
  std::string reason;            // "stop" or "length"
  int prompt_tokens = 0;
  int completion_tokens = 0;
  double median_step_ms = 0;     // of the engine steps that made its tokens
  int cached_tokens = 0;         // of the prompt, whose keys and values were there already
};

// What the engine of a worker has and does, as it said last.
struct EngineFigures {
  int64_t running = 0;         // requests that it computes; others wait for memory
  int64_t pages_held = 0;      // of its KV cache
  int64_t pages = 0;
  int64_t prefix_queries = 0;  // tokens of prompts, since it began, ...
  int64_t prefix_hits = 0;     // ... and those of them that it had computed before
  int64_t preemptions = 0;
};

// One message of an answer.
struct WorkerEvent {
  std::string bytes;             // of a generation: UTF-8, whole characters; may be empty

  // Of an answer of bytes:
  std::optional<handler::AnswerHead> head;  // in the first event
  bool last = false;             // nothing follows

  // Of a generation:
  int token_id = -1;             // -1: the event carries no token
  std::vector<text::TokenLogprob> logprobs = {};  // of the token: itself, then the most likely ones; empty unless asked for
  std::vector<std::vector<text::TokenLogprob>> prompt_logprobs = {};  // in the first event: the same of each token of the prompt; of the first one NaN
  double step_ms = 0;            // the engine step that made it
  std::optional<FinishedInfo> finished;  // in the last event
};

// Receives the answer to one request.
//
// Threads: called from any thread, one call at a time from a worker; on_done() may overtake an on_event() that is under way
//          (a timeout or a lost worker ends a request at once), so events after on_done() must be ignored.
// Blocks:  must not block.
class RequestObserver {
 public:
  virtual ~RequestObserver() = default;
  // false: the reader is gone or too slow; the request is cancelled.
  [[nodiscard]] virtual bool on_event(const WorkerEvent& event) = 0;
  // Exactly once. nullopt: the request ended as it should.
  virtual void on_done(const std::optional<Error>& failure) = 0;
};

// A running request. Destroying the handle does not cancel it.
class WorkerCall {
 public:
  virtual ~WorkerCall() = default;
  // The worker stops within one step; other handlers are told. May be called at any time, also after the end, from any thread.
  virtual void cancel() = 0;
};

// Threads:  every method from any thread.
// Lifetime: destroyed only after on_done() of each of its requests has been called, and never by a thread that calls observers:
//           a client may own the very threads that do, and its destructor waits for them.
class WorkerClient {
 public:
  virtual ~WorkerClient() = default;
  // Waits until every rank has loaded the model. kDeadlineExceeded or kUnavailable: not yet, ask again;
  // any other code is the reason why loading has failed.
  [[nodiscard]] virtual Result<WorkerInfo> wait_ready(Deadline deadline) = 0;
  // Starts a request. The observer may be called before this returns.
  [[nodiscard]] virtual std::shared_ptr<WorkerCall> start(const Payload& payload, std::shared_ptr<RequestObserver> observer) = 0;
  // Why it is of no more use, whatever its process does: its connection has ended, or what came was not the protocol. nullopt: it is not known to be.
  [[nodiscard]] virtual std::optional<Error> broken() { return std::nullopt; }
  // Answers at once. nullopt: it has no engine, or has not said anything yet.
  [[nodiscard]] virtual std::optional<EngineFigures> engine_figures() const { return std::nullopt; }
  // No new requests; waits until the running ones have ended. false: not by the deadline, or the worker is gone.
  [[nodiscard]] virtual bool drain(Deadline deadline) = 0;
};

// Makes the client of the worker that listens (or will listen) on a unix socket.
using WorkerClientFactory = std::function<std::shared_ptr<WorkerClient>(const std::filesystem::path& socket)>;

}  // namespace penstock::frontend
