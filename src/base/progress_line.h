#pragma once
// How far a long piece of work is: one line that is rewritten in place on a terminal, now and then a plain line otherwise.
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace penstock {

struct ProgressOptions {
  bool terminal = false;  // rewrite in place; false: separate lines, for logs and pipes
  bool unicode = false;   // a bar of block characters; false: '#' and '-'
  bool color = false;
  int columns = 0;        // cut to this width; 0 = ask the terminal each time
  milliseconds terminal_interval{100};  // redraw at most this often
  milliseconds plain_interval{10000};   // a separate line at most this often
};

// Draws "bar percent text". Of the updates that come too soon after a drawn one only the last is kept, and drawn by finish().
//
// Threads:  one thread at a time.
// Lifetime: `out` outlives it. The destructor finishes the line, so an exception on the way leaves a clean terminal.
class ProgressLine {
 public:
  ProgressLine(std::ostream& out, const ProgressOptions& options) : out_(out), options_(options) {}
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // What suits standard error: terminal or not, UTF-8 or not (LC_ALL, LC_CTYPE, LANG), color unless NO_COLOR is set.
  [[nodiscard]] static ProgressOptions for_stderr();

  // `fraction` is clamped to 0 ... 1; `text` is one line of UTF-8. Draws when the last drawing is long enough ago.
  void update(double fraction, std::string_view text, Clock::time_point now = Clock::now());

  // A line that stays, such as "checkpoint written", above the progress line.
  void print_above(std::string_view line);

  // Leaves the last state on the screen and ends the line. Later calls do nothing.
  void finish();

 private:
  void draw();
  [[nodiscard]] int columns() const;
  [[nodiscard]] std::string bar(int cells) const;

  std::ostream& out_;
  const ProgressOptions options_;
  double fraction_ = 0;
  std::string text_;
  std::optional<Clock::time_point> drawn_at_;
  bool pending_ = false;   // the last update is not drawn yet
  bool on_line_ = false;   // the cursor stands on a drawn progress line
  bool finished_ = false;
};

// The first `columns` characters of UTF-8 text (one column each).
[[nodiscard]] std::string_view cut_to_columns(std::string_view text, int columns);

}  // namespace penstock
