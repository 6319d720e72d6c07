#include "frontend/trace_context.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

namespace penstock::frontend {
namespace {

constexpr size_t kMaxStateMembers = 32;
constexpr size_t kMaxStateBytes = 512;
constexpr size_t kMaxRequestId = 128;
constexpr char kDigits[] = "0123456789abcdef";

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// false: not lower-case hexadecimal.
bool read_hex(std::string_view text, uint8_t* bytes) {
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = hex_value(text[i]), low = hex_value(text[i + 1]);
    if (high < 0 || low < 0) return false;
    bytes[i / 2] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

template <size_t N>
bool is_zero(const std::array<uint8_t, N>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

template <size_t N>
std::array<uint8_t, N> random_id() {
  thread_local std::mt19937_64 random{(static_cast<uint64_t>(std::random_device{}()) << 32) ^ std::random_device{}()};
  std::array<uint8_t, N> id{};
  do {
    for (size_t i = 0; i < N; i += 8) {
      const uint64_t bits = random();
      std::memcpy(id.data() + i, &bits, 8);
    }
  } while (is_zero(id));
  return id;
}

// A key, or one half of "TENANT@SYSTEM".
bool valid_key_part(std::string_view part, size_t max, bool may_begin_with_digit) {
  if (part.empty() || part.size() > max || !(is_lower(part[0]) || (may_begin_with_digit && is_digit(part[0])))) return false;
  return std::all_of(part.begin(), part.end(), [](char c) { return is_lower(c) || is_digit(c) || c == '_' || c == '-' || c == '*' || c == '/'; });
}

bool valid_key(std::string_view key) {
  const size_t at = key.find('@');
  if (at == std::string_view::npos) return valid_key_part(key, 256, false);
  return valid_key_part(key.substr(0, at), 241, true) && valid_key_part(key.substr(at + 1), 14, false);
}

bool valid_value(std::string_view value) {
  if (value.empty() || value.size() > 256 || value.back() == ' ') return false;
  return std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c <= 0x7E && c != ',' && c != '='; });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<TraceContext> parse_traceparent(std::string_view text) {
  constexpr size_t kLength = 55;
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
  TraceContext context;
  uint8_t version = 0;
  const bool hex = read_hex(text.substr(0, 2), &version) && read_hex(text.substr(3, 32), context.trace.data()) &&
                   read_hex(text.substr(36, 16), context.span.data()) && read_hex(text.substr(53, 2), &context.flags);
  if (!hex || version == 0xFF || is_zero(context.trace) || is_zero(context.span)) return std::nullopt;
  const bool longer = text.size() > kLength;
  if (longer && (version == 0 || text[kLength] != '-')) return std::nullopt;
  if (version != 0) context.flags &= 1;  // what its other flags mean is unknown
  return context;
}

bool valid_tracestate(std::string_view text) {
  if (text.size() > kMaxStateBytes) return false;
  size_t members = 0;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    const std::string_view member = trimmed(text.substr(start, comma - start));
    start = comma + 1;
    if (member.empty()) continue;  // allowed
    const size_t equals = member.find('=');
    if (++members > kMaxStateMembers || equals == std::string_view::npos) return false;
    if (!valid_key(member.substr(0, equals)) || !valid_value(member.substr(equals + 1))) return false;
  }
  return true;
}

std::optional<TraceContext> read_trace(std::string_view traceparent, size_t num_traceparents, std::string_view tracestate) {
  if (num_traceparents != 1) return std::nullopt;
  auto context = parse_traceparent(traceparent);
  if (context && valid_tracestate(tracestate)) context->state = tracestate;
  return context;
}

RequestTrace begin_trace(std::optional<TraceContext> caller, bool recording) {
  RequestTrace trace;
  trace.recorded = recording && (!caller || caller->sampled());
  if (!trace.recorded) {
    trace.context = std::move(caller);
    return trace;
  }
  TraceContext own;
  if (caller) {
    trace.parent = caller->span;
    own = *std::move(caller);
  } else {
    own.trace = new_trace_id();
    own.flags = 1;
  }
  own.span = new_span_id();
  trace.context = std::move(own);
  return trace;
}

std::string to_hex(const uint8_t* bytes, size_t count) {
  std::string text;
  text.reserve(2 * count);
  for (size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

std::string traceparent(const TraceContext& context) {
  return "00-" + to_hex(context.trace.data(), context.trace.size()) + "-" + to_hex(context.span.data(), context.span.size()) + "-" +
         to_hex(&context.flags, 1);
}

TraceId new_trace_id() { return random_id<16>(); }
SpanId new_span_id() { return random_id<8>(); }

bool sane_request_id(std::string_view id) {
  constexpr std::string_view kMarks = "-_.:/+=@";
  if (id.empty() || id.size() > kMaxRequestId) return false;
  return std::all_of(id.begin(), id.end(), [&](char c) {
    return is_lower(c) || is_digit(c) || (c >= 'A' && c <= 'Z') || kMarks.find(c) != std::string_view::npos;
  });
}

}  // namespace penstock::frontend
