#pragma once
// The interface of a handler in a shared library: what `handler: NAME.so` in a model's folder has to offer. This header needs nothing but the
// standard library; a handler is compiled against it alone and links no Penstock.
//
//   class Echo final : public penstock::native::Handler {
//    public:
//     explicit Echo(const penstock::native::Model& model) {}
//     void handle(const penstock::native::Request& request, penstock::native::Answer& answer) override {
//       answer.finish(request.num_parts() > 0 ? request.part(0).bytes : "");
//     }
//   };
//   PENSTOCK_HANDLER(Echo)
//
// Threads:  the handler is made by one thread; handle() is called by up to Model::max_concurrent threads at once.
// Lifetime: what Model, Request and Answer lend is valid until the call that got it returns.
// Errors:   an exception derived from std::exception becomes status 500 with its text, or ends an answer that has begun; one out of the
//           constructor says why the model cannot be loaded. A crash ends the worker process only: it is started again.
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock::native {

// Grows with every change of this header that old libraries would not survive. The worker refuses others by name.
inline constexpr std::uint32_t kAbiVersion = 1;

struct Model {
  std::string_view name;
  std::string_view folder;      // the model's folder, absolute; the handler's files lie there
  int max_concurrent = 1;       // handler.max_concurrent of model-config.yaml
};

struct Header {
  std::string_view name;
  std::string_view value;
};

struct Part {
  std::string_view name;         // "body" for a body over HTTP, the client's key over gRPC
  std::string_view content_type; // may be empty
  std::string_view bytes;
};

class Request {
 public:
  [[nodiscard]] virtual std::string_view id() const = 0;
  [[nodiscard]] virtual std::size_t num_parts() const = 0;
  [[nodiscard]] virtual Part part(std::size_t i) const = 0;
  [[nodiscard]] virtual std::size_t num_headers() const = 0;  // of HTTP; gRPC's metadata are none
  [[nodiscard]] virtual Header header(std::size_t i) const = 0;
  // The client has gone or its time is over: nobody waits for the answer, handle() may return at once.
  [[nodiscard]] virtual bool cancelled() const = 0;

 protected:
  ~Request() = default;
};

// One answer. Over HTTP, pieces that are sent become chunks; over gRPC, messages of StreamPredictions, or one of Predictions.
class Answer {
 public:
  // These count before the first piece only. Without them: 200, no content type, no headers.
  virtual void set_status(int status) = 0;  // as in HTTP; 400 and above is an error, over gRPC too
  virtual void set_content_type(std::string_view content_type) = 0;
  virtual void add_header(std::string_view name, std::string_view value) = 0;
  // Sends a piece now. false: the client is gone or too slow; handle() should return.
  virtual bool send(std::string_view bytes) = 0;
  // The last piece; what is sent after it is dropped. An answer of nothing but this goes out in one piece. Returning from handle() without it
  // ends the answer, too.
  virtual void finish(std::string_view bytes) = 0;

 protected:
  ~Answer() = default;
};

class Handler {
 public:
  virtual ~Handler() = default;
  virtual void handle(const Request& request, Answer& answer) = 0;
};

}  // namespace penstock::native

// Once in each library: Class is derived from Handler and made of a const Model&.
#define PENSTOCK_HANDLER(Class)                                                                              \
  extern "C" std::uint32_t penstock_handler_abi() { return ::penstock::native::kAbiVersion; }               \
  extern "C" ::penstock::native::Handler* penstock_make_handler(const ::penstock::native::Model& model) {   \
    return new Class(model);                                                                                 \
  }
