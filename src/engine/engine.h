#pragma once
// The serving engine as the RPC layer sees it: requests in, events out. Torch-free.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "text/generation_request.h"
#include "text/token_logprob.h"

namespace penstock::engine {

enum class FinishReason { kStop, kLength, kError };

struct Usage {
  int prompt_tokens = 0;
  int completion_tokens = 0;
  int cached_tokens = 0;      // of the prompt, whose keys and values were there already
  double median_step_ms = 0;  // of the steps that made its tokens
};

// One message of a generation. Exactly one event has finished = true, and it is the last.
struct GenerationEvent {
  std::string text;          // UTF-8, always whole characters; may be empty
  int token_id = -1;         // the token that made this event; -1 in a last event that carries none
  std::vector<text::TokenLogprob> logprobs = {};  // of token_id: itself, then the most likely ones; empty unless asked for
  std::vector<std::vector<text::TokenLogprob>> prompt_logprobs = {};  // in the first event, if asked for: of each token of the prompt, as above; of the
                             // first one, which nothing predicts, itself alone with NaN
  double step_ms = 0;        // time of the engine step that made it, from plan to sampled id
  bool finished = false;
  FinishReason reason = FinishReason::kStop;
  Usage usage;               // in the last event
  Error error{Code::kInternal, ""};  // when reason == kError
};

// Where a generation's events go. Called from the engine thread: must not block and must not call the engine back.
class EventSink {
 public:
  virtual ~EventSink() = default;
  // false: the reader is gone or too slow; the engine drops the request and sends nothing more.
  [[nodiscard]] virtual bool push(GenerationEvent event) = 0;
};

using RequestId = uint64_t;

// What an engine has and does just now, and since it began.
struct EngineStats {
  int64_t running = 0;         // requests that have pages of the KV cache
  int64_t waiting = 0;
  int64_t pages_held = 0;
  int64_t pages = 0;
  int64_t prefix_queries = 0;  // tokens of prompts, ...
  int64_t prefix_hits = 0;     // ... and those of them whose keys and values were there already
  int64_t preemptions = 0;     // requests that were put back for want of pages
};

struct EngineInfo {
  std::string architecture;   // e.g. "LlamaForCausalLM"
  int max_sequence_tokens = 0;
  int max_concurrent = 0;     // sequences that can run at once
  int num_stages = 0;
};

// Threads: every method may be called from any thread and answers at once.
class Engine {
 public:
  virtual ~Engine() = default;
  [[nodiscard]] virtual EngineInfo info() const = 0;
  // nullopt: it does not count.
  [[nodiscard]] virtual std::optional<EngineStats> stats() const { return std::nullopt; }
  // max_tokens is an upper bound: a generation also ends, with kLength, where prompt and completion fill max_sequence_tokens.
  // kInvalidArgument names the field (empty or over-long prompt); kResourceExhausted when the queue is full;
  // kUnavailable when the engine has failed or is stopping.
  [[nodiscard]] virtual Result<RequestId> submit(const text::GenerationRequest& request, std::shared_ptr<EventSink> sink) = 0;
  // The request stops costing compute within one step. Unknown or finished ids are ignored.
  virtual void cancel(RequestId id) = 0;
  // Takes no new requests, finishes what runs.
  virtual void drain() = 0;
};

}  // namespace penstock::engine
