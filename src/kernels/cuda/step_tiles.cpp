#include "kernels/cuda/step_tiles.h"

#include <algorithm>

namespace penstock::kernels::cuda {

StepTiles plan_tiles(std::span<const SequenceRows> sequences, const AttentionShape& shape) {
  const auto group = static_cast<int>(shape.heads / shape.kv_heads);
  const bool one_row_each = std::ranges::all_of(sequences, [](const SequenceRows& s) { return s.count == 1; });
  StepTiles step;
  step.queries = one_row_each && group <= 4 ? 4 : 8;
  const int rows_at_once = std::max(1, step.queries / group);
  int row = 0;
  for (const SequenceRows& s : sequences) {
    const int end = s.start + s.count, first_page = static_cast<int>(step.pages.size());
    const auto read = static_cast<size_t>((end + kPageTokens - 1) / kPageTokens);
    step.pages.insert(step.pages.end(), s.pages.begin(), s.pages.begin() + static_cast<ptrdiff_t>(read));
    step.most_parts = std::max(step.most_parts, parts_of(end));
    for (int p = s.start; p < end; ++p) {
      step.positions.push_back(p);
      step.row_pages.push_back(s.pages[static_cast<size_t>(p / kPageTokens)]);
    }
    for (int p = s.start; p < end; p += rows_at_once) {
      const int count = std::min(rows_at_once, end - p);
      step.tiles.push_back({row, count, p, first_page});
      row += count;
    }
  }
  return step;
}

std::vector<TileRange> ranges_of(std::span<const Tile> tiles, int64_t rows) {
  std::vector<TileRange> ranges;
  int64_t held = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(tiles.size()); ++i) {
    const int64_t count = tiles[static_cast<size_t>(i)].count;
    if (ranges.empty() || held + count > rows) {
      ranges.push_back({i, i});
      held = 0;
    }
    ranges.back().end = i + 1;
    held += count;
  }
  return ranges;
}

}  // namespace penstock::kernels::cuda
