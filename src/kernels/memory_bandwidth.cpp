#include "kernels/memory_bandwidth.h"

#include <algorithm>
#include <atomic>

#include "base/clock.h"
#include "kernels/parallel.h"
#include "kernels/quantized_weight.h"
#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

PENSTOCK_CLONES uint64_t sum_of(const uint64_t* words, int64_t count) {
  uint64_t sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += words[i];
  return sum;
}

}  // namespace

double measure_read_bandwidth(int64_t bytes, double seconds) {
  constexpr int64_t kColumns = 4096, kPiece = 64 << 10;
  const QuantizedWeight memory(kColumns, BlockFormat::kInt8, std::max<int64_t>(kTileRows, bytes / kColumns / kTileRows * kTileRows));
  const QuantizedPart& part = memory.parts()[0];
  const int64_t size = part.tiles() * memory.blocks() * part.tile_block_bytes();
  std::atomic<uint64_t> sink{0};  // without it nothing need be read
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto before = Clock::now();
    parallel_for(0, size / kPiece, 1, [&](int64_t first, int64_t end) {
      sink += sum_of(reinterpret_cast<const uint64_t*>(part.quants + first * kPiece), (end - first) * kPiece / 8);
    });
    best = std::max(best, static_cast<double>(size) / to_seconds(Clock::now() - before));
  } while (to_seconds(Clock::now() - start) < seconds);
  return sink == 0 ? best : 0;  // the memory holds zeros
}

}  // namespace penstock::kernels
