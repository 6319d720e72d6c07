#include "kernels/quantized_weight.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/error.h"

namespace penstock::kernels {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kHugePage = 2 << 20;

int64_t whole(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

// Large weights are read from front to back at every step: on huge pages the processor reads ahead without stopping at every 4 KiB.
std::byte* allocate(int64_t bytes) {
  const int64_t unit = bytes >= 2 * kHugePage ? kHugePage : kLine;
  const auto size = static_cast<size_t>(whole(bytes, unit));
  void* memory = std::aligned_alloc(static_cast<size_t>(unit), size);
  if (memory == nullptr) throw std::bad_alloc();
  if (unit == kHugePage) (void)::madvise(memory, size, MADV_HUGEPAGE);  // only speed is lost where the system has none
  std::memset(memory, 0, size);
  return static_cast<std::byte*>(memory);
}

// The 4-byte words of row `r` in a block of a tile stand 16 words apart.
uint8_t* word(const QuantizedPart& part, int64_t tile_block, int64_t row_in_tile, int64_t group) {
  return part.quants + tile_block * part.tile_block_bytes() + (group * kTileRows + row_in_tile) * 4;
}

struct Place {
  int64_t tile_block;   // the first of the row's tile
  int64_t row_in_tile;
};

Place place_of(const QuantizedPart& part, int64_t row, int64_t blocks) {
  const int64_t within = row - part.first_row;
  return {within / kTileRows * blocks, within % kTileRows};
}

}  // namespace

void QuantizedWeight::Free::operator()(std::byte* memory) const { std::free(memory); }

QuantizedWeight::QuantizedWeight(int64_t columns, BlockFormat format, int64_t rows)
    : QuantizedWeight(columns, std::vector<Rows>{{format, rows}}) {}

QuantizedWeight::QuantizedWeight(int64_t columns, std::span<const Rows> parts) : columns_(columns) {
  for (const Rows& rows : parts) {
    if (rows.count == 0) continue;
    parts_.push_back({rows.format, rows_, rows.count});
    rows_ += rows.count;
  }
  PENSTOCK_CHECK(rows_ > 0 && columns > 0, "a quantized weight of {} rows and {} columns", rows_, columns);
  struct Offsets {
    int64_t quants, scales, minima;
  };
  std::vector<Offsets> offsets;
  for (const QuantizedPart& part : parts_) {
    const int64_t tile_blocks = part.tiles() * blocks(), halves = whole(tile_blocks * kTileRows * 2, kLine);
    Offsets o{bytes_, bytes_ + tile_blocks * part.tile_block_bytes(), 0};
    o.minima = o.scales + halves;
    bytes_ = part.format == BlockFormat::kInt4Min ? o.minima + halves : o.minima;
    offsets.push_back(o);
  }
  memory_.reset(allocate(bytes_));
  for (size_t i = 0; i < parts_.size(); ++i) {
    parts_[i].quants = reinterpret_cast<uint8_t*>(memory_.get() + offsets[i].quants);
    parts_[i].scales = reinterpret_cast<uint16_t*>(memory_.get() + offsets[i].scales);
    if (parts_[i].format == BlockFormat::kInt4Min) parts_[i].minima = reinterpret_cast<uint16_t*>(memory_.get() + offsets[i].minima);
  }
}

const QuantizedPart& QuantizedWeight::part_of(int64_t row) const {
  PENSTOCK_CHECK(row >= 0 && row < rows_, "row {} of a quantized weight of {}", row, rows_);
  return *std::find_if(parts_.begin(), parts_.end(), [row](const QuantizedPart& part) { return row < part.first_row + part.rows; });
}

void QuantizedWeight::set_values(int64_t first, int64_t count, const float* values) {
  std::vector<std::byte> row;
  for (int64_t r = first; r < first + count; ++r, values += columns_) {
    const BlockFormat format = part_of(r).format;
    row.resize(static_cast<size_t>(row_bytes(format, columns_)));
    quantize_row(format, values, columns_, row.data());
    set_blocks(format, r, 1, row.data());
  }
}

void QuantizedWeight::set_blocks(BlockFormat format, int64_t first, int64_t count, const std::byte* blocks) {
  for (int64_t r = first; r < first + count; ++r) {
    const QuantizedPart& part = part_of(r);
    PENSTOCK_CHECK(part.format == format, "row {} of a quantized weight is of format {}, its blocks of {}", r, static_cast<int>(part.format), static_cast<int>(format));
    const auto [tile_block, row] = place_of(part, r, this->blocks());
    const int64_t groups = part.tile_block_bytes() / (4 * kTileRows), head = part.minima != nullptr ? 4 : 2;
    for (int64_t b = 0; b < this->blocks(); ++b, blocks += block_bytes(format)) {
      const int64_t at = (tile_block + b) * kTileRows + row;
      std::memcpy(part.scales + at, blocks, 2);
      if (part.minima != nullptr) std::memcpy(part.minima + at, blocks + 2, 2);
      for (int64_t g = 0; g < groups; ++g) std::memcpy(word(part, tile_block + b, row, g), blocks + head + 4 * g, 4);
    }
  }
}

void QuantizedWeight::get_values(int64_t row, float* values) const {
  const QuantizedPart& part = part_of(row);
  const auto [tile_block, in_tile] = place_of(part, row, blocks());
  const int64_t groups = part.tile_block_bytes() / (4 * kTileRows), head = part.minima != nullptr ? 4 : 2;
  std::byte block[64];
  for (int64_t b = 0; b < blocks(); ++b) {
    const int64_t at = (tile_block + b) * kTileRows + in_tile, first = b * kBlockValues;
    std::memcpy(block, part.scales + at, 2);
    if (part.minima != nullptr) std::memcpy(block + 2, part.minima + at, 2);
    for (int64_t g = 0; g < groups; ++g) std::memcpy(block + head + 4 * g, word(part, tile_block + b, in_tile, g), 4);
    dequantize_row(part.format, block, std::min(kBlockValues, columns_ - first), values + first);
  }
}

}  // namespace penstock::kernels
