#include "chat_input.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace penstock {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";
constexpr size_t kLongestLine = 1 << 20;
constexpr int kLookUpMs = 100;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  return text;
}

}  // namespace

std::optional<std::string> MessageAssembler::add(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!in_block_ && text_.empty() && trimmed(line).starts_with(kQuotes)) {
    in_block_ = true;
    line = trimmed(line).substr(kQuotes.size());
    if (line.empty()) return std::nullopt;
  }
  if (in_block_) {
    const bool ends = trimmed(line).ends_with(kQuotes);
    if (ends) line = line.substr(0, line.rfind(kQuotes));
    text_ += line;
    if (ends) return take();
    text_ += '\n';
    return std::nullopt;
  }
  if (line.ends_with('\\')) {
    text_ += line.substr(0, line.size() - 1);
    text_ += '\n';
    return std::nullopt;
  }
  text_ += line;
  return take();
}

std::string MessageAssembler::take() {
  in_block_ = false;
  std::string text = std::exchange(text_, {});
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

LineReader::Outcome LineReader::next(std::string& line, const std::function<bool()>& interrupted) {
  for (;;) {
    const size_t end = std::min(pending_.find('\n'), pending_.size());
    if (end < pending_.size() || pending_.size() >= kLongestLine || (ended_ && !pending_.empty())) {
      line = pending_.substr(0, end);
      pending_.erase(0, std::min(end + 1, pending_.size()));
      return Outcome::kLine;
    }
    if (ended_) return Outcome::kEnd;
    if (interrupted()) {
      pending_.clear();
      return Outcome::kInterrupted;
    }
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, kLookUpMs) <= 0) continue;
    char buffer[4096];
    const ssize_t got = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) ended_ = true;
    else pending_.append(buffer, static_cast<size_t>(got));
  }
}

}  // namespace penstock
