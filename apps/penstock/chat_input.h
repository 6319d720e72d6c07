#pragma once
// What a user types: lines, and messages of several lines.
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

// Puts lines together to messages. A line that ends with a backslash goes on in the next one; """ begins a message that ends with the next """.
class MessageAssembler {
 public:
  // The message, when the line ends one.
  [[nodiscard]] std::optional<std::string> add(std::string_view line);
  [[nodiscard]] bool unfinished() const { return in_block_ || !text_.empty(); }
  // What there is of an unfinished message.
  [[nodiscard]] std::string take();

 private:
  std::string text_;
  bool in_block_ = false;
};

// Lines of standard input, which may be a terminal or a pipe.
class LineReader {
 public:
  enum class Outcome { kLine, kEnd, kInterrupted };
  // Waits for a line, without its line feed. `interrupted`: asked ten times a second; true ends the wait, and what was typed is forgotten.
  // A line of more than 1 MiB ends there.
  [[nodiscard]] Outcome next(std::string& line, const std::function<bool()>& interrupted);

 private:
  std::string pending_;
  bool ended_ = false;
};

}  // namespace penstock
