#pragma once
// W3C Trace Context (https://www.w3.org/TR/trace-context/): which trace a request belongs to, and where in it.
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock::frontend {

using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

struct TraceContext {
  TraceId trace{};
  SpanId span{};      // of the caller: the parent of what is done for it
  uint8_t flags = 0;  // bit 0: the caller records this trace
  std::string state;  // tracestate: other systems' words, passed on as they are

  [[nodiscard]] bool sampled() const { return (flags & 1) != 0; }
};

// Strictly: lower-case digits, no id of zeros, version 00 with nothing behind it; of a later version what 00 has. nullopt: as if not there.
[[nodiscard]] std::optional<TraceContext> parse_traceparent(std::string_view text);
// Whether a tracestate may be passed on: at most 32 members "KEY=VALUE" and 512 characters, keys and values as the standard has them.
[[nodiscard]] bool valid_tracestate(std::string_view text);
// Both headers of a request. More than one traceparent, or a bad one: nullopt. A bad tracestate is dropped.
[[nodiscard]] std::optional<TraceContext> read_trace(std::string_view traceparent, size_t num_traceparents, std::string_view tracestate);

// The place of one request in a trace.
struct RequestTrace {
  std::optional<TraceContext> context;  // handed to whoever works for the request; none: it belongs to no trace
  std::optional<SpanId> parent;         // of the request's own span, which is context->span
  bool recorded = false;                // it has such a span; otherwise the context is the caller's, passed through
};

// Of a request that came with `caller`. With `recording`, a request without a caller begins a trace; one whose caller does not record is
// passed through.
[[nodiscard]] RequestTrace begin_trace(std::optional<TraceContext> caller, bool recording);

// "00-TRACE-SPAN-FLAGS".
[[nodiscard]] std::string traceparent(const TraceContext& context);

// Random, never zero. Threads: any.
[[nodiscard]] TraceId new_trace_id();
[[nodiscard]] SpanId new_span_id();

[[nodiscard]] std::string to_hex(const uint8_t* bytes, size_t count);

// A client's own x-request-id, if it is short and harmless in a header or a log (letters, digits, "-_.:/+=@", at most 128).
[[nodiscard]] bool sane_request_id(std::string_view id);

}  // namespace penstock::frontend
