#include "text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace penstock::text {
namespace {

// Knuth, Morris, Pratt: for each prefix, the length of its longest proper prefix that is also its suffix.
std::vector<size_t> borders(const std::string& text) {
  std::vector<size_t> border(text.size(), 0);
  for (size_t i = 1, length = 0; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[length]) length = border[length - 1];
    if (text[i] == text[length]) ++length;
    border[i] = length;
  }
  return border;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    PENSTOCK_CHECK(!stop.empty(), "a stop string is empty");
    std::vector<size_t> fallback = borders(stop);
    patterns_.push_back({std::move(stop), std::move(fallback), 0});
  }
}

std::string StopStrings::feed(std::string_view piece) {
  if (matched_) return "";
  std::string text = std::exchange(held_, "");
  for (const char c : piece) {
    text += c;
    size_t longest_match = 0;
    for (Pattern& p : patterns_) {
      while (p.length > 0 && p.text[p.length] != c) p.length = p.fallback[p.length - 1];
      if (p.text[p.length] == c) ++p.length;
      if (p.length == p.text.size()) longest_match = std::max(longest_match, p.length);
    }
    if (longest_match > 0) {
      matched_ = true;
      text.resize(text.size() - longest_match);
      return text;
    }
  }
  // What is matched so far of any stop string stays; the pattern that began first covers the others.
  size_t held = 0;
  for (const Pattern& p : patterns_) held = std::max(held, p.length);
  held_ = text.substr(text.size() - held);
  text.resize(text.size() - held);
  return text;
}

std::string StopStrings::flush() {
  for (Pattern& p : patterns_) p.length = 0;
  return std::exchange(held_, "");
}

}  // namespace penstock::text
