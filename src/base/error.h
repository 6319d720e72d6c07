#pragma once
// Errors in three forms (docs/architecture.md, "Errors"):
//   Bug        a broken invariant; thrown by PENSTOCK_CHECK, never compiled out.
//   Error      something outside failed or was wrong: a code, and a message that says what, where, expected and found, and what to try.
//   Result<T>  an expected answer that the caller handles at once.
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace penstock {

// The same meanings as the gRPC codes of these names.
enum class Code {
  kInvalidArgument,    // the caller's input is wrong; names the field
  kNotFound,
  kAlreadyExists,
  kPermissionDenied,
  kFailedPrecondition,
  kResourceExhausted,  // full; try later
  kUnavailable,        // a peer or a worker is gone; try again
  kDeadlineExceeded,
  kCancelled,
  kDataLoss,           // a file is missing, truncated or contradicts itself
  kUnimplemented,      // known, and left out
  kInternal,
};

[[nodiscard]] std::string_view to_string(Code code);

class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] Code code() const { return code_; }
  [[nodiscard]] std::string message() const { return what(); }

 private:
  Code code_;
};

template <typename... Args>
[[nodiscard]] Error error(Code code, fmt::format_string<Args...> format, Args&&... args) {
  return {code, fmt::format(format, std::forward<Args>(args)...)};
}

// A broken invariant of our own. Nobody handles it: the thread's root logs it and the process ends.
class Bug : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Either a value or the Error that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT: implicit on purpose, `return value;`
  Result(Error error) : state_(std::move(error)) {}  // NOLINT: implicit on purpose, `return error(...);`

  [[nodiscard]] bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }

  // REQUIRES: ok(); throws the Error otherwise.
  T& value() & { return require(); }
  const T& value() const& { return const_cast<Result*>(this)->require(); }
  T&& value() && { return std::move(require()); }
  T* operator->() { return &require(); }
  T& operator*() { return require(); }

  // REQUIRES: !ok().
  [[nodiscard]] const Error& error() const { return std::get<Error>(state_); }

 private:
  T& require() {
    if (auto* failed = std::get_if<Error>(&state_)) throw *failed;
    return std::get<T>(state_);
  }
  std::variant<T, Error> state_;
};

namespace detail {
[[noreturn]] void check_failed(const char* expression, const char* file, int line, const std::string& detail);
}  // namespace detail

}  // namespace penstock

// Throws Bug with the expression and the formatted explanation when `condition` is false.
#define PENSTOCK_CHECK(condition, ...)                                                                  \
  do {                                                                                                  \
    if (!(condition)) ::penstock::detail::check_failed(#condition, __FILE__, __LINE__, fmt::format(__VA_ARGS__)); \
  } while (false)
