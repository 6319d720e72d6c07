#pragma once
// How a generation's text is written into an HTTP answer. Internal to rpc/.
#include <memory>
#include <string>

namespace penstock::rpc {

// Threads: constant.
class TextFormat {
 public:
  virtual ~TextFormat() = default;
  [[nodiscard]] virtual const char* whole_type() const = 0;   // content types
  [[nodiscard]] virtual const char* stream_type() const = 0;
  // The answer in one piece.
  [[nodiscard]] virtual std::string whole(const std::string& text) const = 0;
  // One chunk of a stream; `text` is UTF-8, not empty.
  [[nodiscard]] virtual std::string piece(const std::string& text) const = 0;
};

// The text itself.
[[nodiscard]] std::shared_ptr<const TextFormat> make_plain_format();

// What TorchServe's handlers for large models send: {"text": "..."}, in a stream one for each chunk.
[[nodiscard]] std::shared_ptr<const TextFormat> make_json_format();

}  // namespace penstock::rpc
