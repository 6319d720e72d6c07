#pragma once
// HTTP as our handlers see it; http_server.cpp puts it on the wire.
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "frontend/trace_context.h"
#include "handler/request.h"

namespace penstock::rpc {

struct HttpRequest {
  std::string id;                                 // the client's own x-request-id, or a UUID; the answer bears it
  std::string method;                             // "GET"
  std::string target;                             // as sent: path and query
  std::string path;                               // without the query, still encoded
  std::map<std::string, std::string> query;       // decoded; of a name that comes twice, the last
  std::map<std::string, std::string> parameters;  // from the route's pattern: {model_name}
  handler::Headers headers;                       // as they came
  std::string body;
  frontend::RequestTrace trace;
  std::string client;                             // the address that it comes from, without the port; "unix"; empty = not known
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";  // empty: none is sent
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // besides those that every response has
};

// Where one request is answered: either send(), or begin_stream(), any number of chunk(), end_stream().
//
// Threads: every method from any thread, one at a time. None blocks.
class HttpReply {
 public:
  virtual ~HttpReply() = default;
  virtual void send(HttpResponse response) = 0;
  // Chunked, so the client must speak HTTP/1.1.
  [[nodiscard]] virtual bool can_stream() const = 0;
  virtual void begin_stream(HttpResponse head) = 0;
  // false: the client is gone or reads too slowly; nothing more will be sent.
  [[nodiscard]] virtual bool chunk(std::string text) = 0;
  // An error goes into the stream, as its last chunk: the status line is long gone.
  virtual void end_stream(const std::optional<Error>& failure) = 0;
  // Called once if the client goes before the answer has ended; at once if it has gone already. To be set before anybody may answer, unless on the
  // connection's own thread: afterwards it would be the next request's.
  virtual void when_gone(std::function<void()> gone) = 0;
};

// TorchServe's form of an error: {"code", "type", "message"}.
[[nodiscard]] HttpResponse error_response(int status, std::string_view type, std::string_view message);
[[nodiscard]] HttpResponse error_response(const Error& error);

// TorchServe's answer to who has no key that opens a route: 400, not 401. `refused`: what AccessKeys::check() said.
[[nodiscard]] HttpResponse token_refusal(const Error& refused);

// "%20" and, in a query, "+" decoded; nullopt for a broken escape or a NUL.
[[nodiscard]] std::optional<std::string> decode_url(std::string_view text, bool plus_is_space);

// "a=1&b=2", of a query or a form, decoded; of a name that comes twice, the last. nullopt for a broken escape.
[[nodiscard]] std::optional<std::map<std::string, std::string>> decode_query(std::string_view text);

}  // namespace penstock::rpc
