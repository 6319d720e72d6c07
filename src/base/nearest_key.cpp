#include "base/nearest_key.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "base/error.h"

namespace penstock {
namespace {

constexpr size_t kComparedBytes = 128;  // the distance takes quadratic time, and the key is outside input

char folded(char c) { return c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// Optimal string alignment distance, three rows at a time.
size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, kComparedBytes);
  b = b.substr(0, kComparedBytes);
  std::vector<size_t> before_last, last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = folded(a[i - 1]) == folded(b[j - 1]);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && folded(a[i - 1]) == folded(b[j - 2]) && folded(a[i - 2]) == folded(b[j - 1]);
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last = last;
    last = row;
  }
  return last[b.size()];
}

}  // namespace

std::string_view nearest_key(std::string_view key, std::span<const std::string_view> known) {
  PENSTOCK_CHECK(!known.empty(), "no known keys to compare '{}' with", key);
  return *std::min_element(known.begin(), known.end(),
                           [&](std::string_view a, std::string_view b) { return edit_distance(key, a) < edit_distance(key, b); });
}

std::string unknown_key(std::string_view key, std::span<const std::string_view> known) {
  const bool overlong = key.size() > kComparedBytes;
  if (known.empty()) return fmt::format("unknown key '{}{}': nothing stands below the key before its last dot", key.substr(0, kComparedBytes), overlong ? "..." : "");
  return fmt::format("unknown key '{}{}'; did you mean '{}'?", key.substr(0, kComparedBytes), overlong ? "..." : "",
                     nearest_key(key, known));
}

}  // namespace penstock
