#include "base/nearest_key.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "base/error.h"
#include "base/shown.h"

namespace penstock {
namespace {

constexpr size_t kComparedBytes = 64;  // the distance takes quadratic time, and the key is outside input

// What is compared of a key.
std::string folded(std::string_view key) {
  std::string text(key.substr(0, kComparedBytes));
  for (char& c : text) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// Optimal string alignment distance, three rows at a time.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = a[i - 1] == b[j - 1];
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    before_last.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

}  // namespace

std::string_view nearest_key(std::string_view key, std::span<const std::string_view> known) {
  PENSTOCK_CHECK(!known.empty(), "no known keys to compare '{}' with", key);
  const std::string wanted = folded(key);
  std::string_view nearest;
  size_t best = std::string::npos;
  for (const std::string_view candidate : known) {
    const std::string text = folded(candidate);
    const size_t at_least = std::max(text.size(), wanted.size()) - std::min(text.size(), wanted.size());
    if (at_least >= best) continue;
    const size_t distance = edit_distance(wanted, text);
    if (distance >= best) continue;
    best = distance;
    nearest = candidate;
  }
  return nearest;
}

std::string unknown_key(std::string_view key, std::span<const std::string_view> known) {
  if (known.empty()) return fmt::format("unknown key '{}': nothing stands below the key before its last dot", shown(key));
  return fmt::format("unknown key '{}'; did you mean '{}'?", shown(key), nearest_key(key, known));
}

}  // namespace penstock
