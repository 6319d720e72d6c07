#include "base/progress_line.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <ostream>

namespace penstock {

namespace {

constexpr int kUsualColumns = 80;
constexpr int kFewestColumnsWithBar = 40;
constexpr std::string_view kEraseToEndOfLine = "\x1b[K";

bool set_and_not_empty(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

// The first of the three that is set decides, as for the C library.
bool locale_is_utf8() {
  for (const char* variable : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (!set_and_not_empty(variable)) continue;
    const std::string_view value = std::getenv(variable);
    return value.find("UTF-8") != std::string_view::npos || value.find("utf8") != std::string_view::npos;
  }
  return false;
}

}  // namespace

ProgressOptions ProgressLine::for_stderr() {
  ProgressOptions options;
  const char* terminal = std::getenv("TERM");
  options.terminal = ::isatty(STDERR_FILENO) == 1 && terminal != nullptr && std::string_view(terminal) != "dumb";
  options.unicode = locale_is_utf8();
  options.color = options.terminal && !set_and_not_empty("NO_COLOR");
  return options;
}

ProgressLine::~ProgressLine() {
  try {
    finish();
  } catch (...) {  // a stream that throws has nothing more to show
  }
}

void ProgressLine::update(double fraction, std::string_view text, Clock::time_point now) {
  if (finished_) return;
  fraction_ = fraction >= 0 ? std::min(fraction, 1.0) : 0.0;  // a NaN shows as 0
  text_ = text;
  pending_ = true;
  const milliseconds interval = options_.terminal ? options_.terminal_interval : options_.plain_interval;
  if (drawn_at_ && now - *drawn_at_ < interval) return;
  drawn_at_ = now;
  draw();
}

void ProgressLine::print_above(std::string_view line) {
  if (on_line_) out_ << '\r' << kEraseToEndOfLine;
  out_ << line << '\n';
  if (on_line_) draw();
  out_.flush();
}

void ProgressLine::finish() {
  if (finished_) return;
  finished_ = true;
  if (pending_) draw();
  if (on_line_) out_ << '\n';
  on_line_ = false;
  out_.flush();
}

void ProgressLine::draw() {
  pending_ = false;
  const std::string percent = fmt::format("{:3.0f}%", 100 * fraction_);
  if (!options_.terminal) {
    out_ << percent << "  " << text_ << '\n';
    out_.flush();
    return;
  }
  const int room = columns() - 1;  // a character in the last column would wrap on some terminals
  std::string start;
  int used = static_cast<int>(percent.size()) + 2;
  if (room >= kFewestColumnsWithBar) {
    const int cells = std::clamp(room / 6, 8, 24);
    start = bar(cells) + ' ';
    used += cells + (options_.unicode ? 1 : 3);
  }
  out_ << '\r' << start << percent << "  " << cut_to_columns(text_, room - used) << kEraseToEndOfLine;
  out_.flush();
  on_line_ = true;
}

int ProgressLine::columns() const {
  if (options_.columns > 0) return options_.columns;
  struct winsize size {};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return kUsualColumns;
}

std::string ProgressLine::bar(int cells) const {
  std::string done;
  std::string left;
  if (options_.unicode) {
    constexpr std::array<std::string_view, 8> kEighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const int eighths = static_cast<int>(fraction_ * cells * 8);
    for (int cell = 0; cell < eighths / 8; ++cell) done += "█";
    done += kEighths.at(static_cast<size_t>(eighths % 8));
    for (int cell = (eighths + 7) / 8; cell < cells; ++cell) left += "░";
  } else {
    const int full = static_cast<int>(fraction_ * cells);
    done = fmt::format("[{:#<{}}", "", full);
    left = fmt::format("{:-<{}}]", "", cells - full);
  }
  if (!options_.color) return done + left;
  return fmt::format("\x1b[36m{}\x1b[90m{}\x1b[0m", done, left);
}

std::string_view cut_to_columns(std::string_view text, int columns) {
  const auto starts_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  int seen = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (starts_character(text[i]) && seen++ >= columns) return text.substr(0, i);
  }
  return text;
}

}  // namespace penstock
