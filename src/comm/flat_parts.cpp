#include "comm/flat_parts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace penstock::comm {

std::vector<Part> parts_of(std::span<const int64_t> offsets) {
  std::vector<Part> parts;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) parts.push_back({offsets[i], offsets[i + 1]});
  return parts;
}

std::vector<int64_t> even_parts(int64_t num_elements, int ranks) {
  constexpr int64_t kAlignment = 16;
  const int64_t each = (num_elements + ranks * kAlignment - 1) / (ranks * kAlignment) * kAlignment;
  std::vector<int64_t> offsets;
  for (int64_t rank = 0; rank <= ranks; ++rank) offsets.push_back(std::min(num_elements, rank * each));
  return offsets;
}

std::string wrong_parts(std::span<const int64_t> offsets, int64_t num_elements, int ranks) {
  const bool count = offsets.size() == static_cast<size_t>(ranks) + 1;
  if (count && offsets.front() == 0 && offsets.back() == num_elements && std::is_sorted(offsets.begin(), offsets.end())) return "";
  return fmt::format("offsets: expected {} rising numbers from 0 to {}, found [{}]", ranks + 1, num_elements, fmt::join(offsets, ", "));
}

}  // namespace penstock::comm
