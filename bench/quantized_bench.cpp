// What products with quantized weights reach on this machine, by format, instruction set and rows of activations (docs/benchmarks.md, "Quantized weights").
// W is 22528 x 2048, as the gate and up projections of two layers of a model of a billion parameters.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <random>

#include "base/clock.h"
#include "kernels/memory_bandwidth.h"
#include "kernels/parallel.h"
#include "kernels/quantized_product.h"
#include "kernels/quantized_tiles.h"
#include "tensor/cpu_features.h"

namespace penstock::kernels {
namespace {

constexpr int64_t kColumns = 2048, kOutputs = 22528;

std::vector<float> noise(int64_t count) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(engine);
  return values;
}

// The best of several products, in seconds.
double best_time(const QuantizedWeight& weight, int64_t rows, const TileKernels& kernels) {
  const auto x = noise(rows * kColumns);
  std::vector<float> y(static_cast<size_t>(rows * kOutputs));
  double best = 1e9;
  const Deadline end = Deadline::after(milliseconds(500));
  do {
    const auto start = Clock::now();
    multiply(weight, x.data(), rows, y.data(), kernels);
    best = std::min(best, to_seconds(Clock::now() - start));
  } while (!end.passed());
  return best;
}

void measure(const TileKernels& kernels) {
  constexpr const char* kNames[] = {"int8", "4 bits", "4 bits, minimum"};
  for (const BlockFormat format : {BlockFormat::kInt8, BlockFormat::kInt4, BlockFormat::kInt4Min}) {
    QuantizedWeight weight(kColumns, format, kOutputs);
    const auto row = noise(kColumns);
    for (int64_t r = 0; r < kOutputs; ++r) weight.set_values(r, 1, row.data());
    for (const int64_t rows : {1, 4, 8, 32, 96, 512}) {
      const double seconds = best_time(weight, rows, kernels), products = 2.0 * static_cast<double>(rows * kColumns * kOutputs);
      fmt::print("{:<14} {:<16} {:>4} rows {:9.2f} ms {:8.1f} GB/s {:8.0f} GOP/s\n", kernels.name, kNames[static_cast<int>(format)], rows, seconds * 1e3,
                 static_cast<double>(weight.bytes()) / seconds * 1e-9, products / seconds * 1e-9);
    }
  }
}

void run(int threads) {
  ThreadTeam team(threads);
  const TeamScope scope(team);
  fmt::print("{} thread(s); memory reads at {:.1f} GB/s\n", threads, measure_read_bandwidth(int64_t{512} << 20, 0.5) * 1e-9);
  const tensor::CpuFeatures cpu = tensor::cpu_features();
  if (cpu.avx2 && cpu.f16c) measure(avx2_tile_kernels());
  if (cpu.avx512_vnni) measure(avx512_tile_kernels());
}

}  // namespace
}  // namespace penstock::kernels

int main(int argc, char** argv) {
  CLI::App app("Products with quantized weights: bytes of weights and operations per second");
  int threads = 2;
  app.add_option("--threads", threads, "Threads that compute")->check(CLI::Range(1, 1024))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  penstock::kernels::run(threads);
  return 0;
}
