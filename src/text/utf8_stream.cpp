#include "text/utf8_stream.h"

#include <utility>

namespace penstock::text {
namespace {
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
}

void Utf8Stream::accept(unsigned char byte, std::string& text) {
  if (!pending_.empty() && (byte < next_.low || byte > next_.high)) {
    text += kReplacement;  // what was pending cannot become a character; the byte itself may start one
    pending_.clear();
  }
  if (pending_.empty()) {
    next_ = utf8_after(byte);
    if (next_.count < 0) {
      text += kReplacement;
      return;
    }
  } else {
    next_ = {.count = next_.count - 1};
  }
  pending_ += static_cast<char>(byte);
  if (next_.count == 0) {
    text += pending_;
    pending_.clear();
  }
}

std::string Utf8Stream::feed(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) accept(static_cast<unsigned char>(byte), text);
  return text;
}

std::string Utf8Stream::flush() {
  const bool unfinished = !pending_.empty();
  pending_.clear();
  return std::string(unfinished ? kReplacement : "");
}

}  // namespace penstock::text
