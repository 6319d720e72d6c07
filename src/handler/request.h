#pragma once
// A request to a handler that takes bytes, and what begins its answer: what HTTP, gRPC and the workers agree on. Plain values.
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace penstock::handler {

using Headers = std::vector<std::pair<std::string, std::string>>;  // in the order of the wire; a name may come twice

struct Part {
  std::string name;          // "body", or the client's name for it
  std::string content_type;  // may be empty
  std::string bytes;
};

struct Request {
  std::string id;
  Headers headers;
  std::vector<Part> parts;
};

struct AnswerHead {
  int status = 200;          // as in HTTP; 400 and above: the answer is an error, its bytes say which
  std::string content_type;  // may be empty
  Headers headers;
};

// Of one request or answer. How many bytes the parts may have together is the listener's business (max_request_size).
inline constexpr size_t kMaxParts = 1024;
inline constexpr size_t kMaxHeaders = 256;
inline constexpr size_t kMaxNameBytes = 1024;
inline constexpr size_t kMaxHeaderBytes = 64 << 10;  // names and values together

// kInvalidArgument naming the limit that is passed.
[[nodiscard]] std::optional<Error> check_request(const Request& request);
// kInternal, for it is the handler's fault: a status outside 200 ... 599, too many or too large headers.
[[nodiscard]] std::optional<Error> check_head(const AnswerHead& head);

// The first value of that name, letter case aside; nullptr when there is none.
[[nodiscard]] const std::string* find_header(const Headers& headers, std::string_view name);

}  // namespace penstock::handler
