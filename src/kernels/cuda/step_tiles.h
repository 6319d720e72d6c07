#pragma once
// The rows of a serving step, cut into the pieces that the CUDA kernels of attention work on. Plain numbers: no GPU is needed here.
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.h"

namespace penstock::kernels::cuda {

// Positions that one block of threads scores. A row with more is computed in several parts, which are merged: how depends on its own position alone.
inline constexpr int kPartPositions = 256;

[[nodiscard]] constexpr int parts_of(int positions) { return (positions + kPartPositions - 1) / kPartPositions; }

// Consecutive rows of one sequence that share what they read.
struct Tile {
  int32_t row = 0;       // of the step, the first one
  int32_t count = 0;     // of rows
  int32_t position = 0;  // of the first row in its sequence
  int32_t pages = 0;     // where the numbers of the sequence's pages begin in StepTiles::pages
};

struct StepTiles {
  std::vector<int32_t> positions;   // [N]: of each row
  std::vector<int32_t> row_pages;   // [N]: the page that each row belongs to
  std::vector<int32_t> pages;       // of all sequences, one after another
  std::vector<Tile> tiles;          // in the order of their rows
  int most_parts = 1;               // of any row
  int queries = 0;                  // that a block has room for: 4 or 8
};

// Heads of one key head times rows of a tile are at most 8, unless a single row has more heads.
[[nodiscard]] StepTiles plan_tiles(std::span<const SequenceRows> sequences, const AttentionShape& shape);

// Consecutive tiles.
struct TileRange {
  int64_t begin = 0;
  int64_t end = 0;
};

// All tiles in order, in ranges of at most `rows` rows each, or of one tile.
[[nodiscard]] std::vector<TileRange> ranges_of(std::span<const Tile> tiles, int64_t rows);

}  // namespace penstock::kernels::cuda
