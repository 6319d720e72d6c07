// What products with served weights reach on this machine, by format, instruction set and rows of activations (docs/benchmarks.md, "Quantized weights").
// W is 22528 x 2048, as the gate and up projections of two layers of a model of a billion parameters.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <bit>
#include <random>

#include "base/clock.h"
#include "kernels/amx.h"
#include "kernels/float_product.h"
#include "kernels/matmul.h"
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

// The best of several products, in seconds: multiply(x, y).
template <typename Multiply>
double best_time(int64_t rows, const Multiply& multiply) {
  const auto x = noise(rows * kColumns);
  std::vector<float> y(static_cast<size_t>(rows * kOutputs));
  double best = 1e9;
  const Deadline end = Deadline::after(milliseconds(500));
  do {
    const auto start = Clock::now();
    multiply(x.data(), y.data());
    best = std::min(best, to_seconds(Clock::now() - start));
  } while (!end.passed());
  return best;
}

void print(const char* kernels, const char* format, int64_t rows, double seconds, int64_t bytes) {
  const double products = 2.0 * static_cast<double>(rows * kColumns * kOutputs);
  fmt::print("{:<14} {:<16} {:>4} rows {:9.2f} ms {:8.1f} GB/s {:8.0f} GOP/s\n", kernels, format, rows, seconds * 1e3, static_cast<double>(bytes) / seconds * 1e-9,
             products / seconds * 1e-9);
}

constexpr int64_t kRows[] = {1, 4, 8, 32, 96, 512};

void measure_floats() {
  const auto weight = noise(kOutputs * kColumns);
  std::vector<Bfloat16> half(weight.size());
  for (size_t i = 0; i < half.size(); ++i) half[i] = static_cast<Bfloat16>(std::bit_cast<uint32_t>(weight[i]) >> 16);
  const auto bytes = static_cast<int64_t>(weight.size());
  for (const int64_t rows : kRows) {
    const ProductSizes sizes{rows, kOutputs, kColumns};
    print(float_instruction_set(), "fp32", rows, best_time(rows, [&](const float* x, float* y) { multiply(weight.data(), x, y, sizes); }), 4 * bytes);
    print(bf16_instruction_set(), "bf16", rows, best_time(rows, [&](const float* x, float* y) { multiply(half.data(), x, y, sizes); }), 2 * bytes);
    const OpenMpScope openmp;
    print("oneDNN, OpenMP", "fp32", rows, best_time(rows, [&](const float* x, float* y) {
            sgemm(Transpose::kNo, Transpose::kYes, rows, kOutputs, kColumns, x, kColumns, weight.data(), kColumns, 0.0f, y, kOutputs);
          }), 4 * bytes);
  }
}

void measure(const TileKernels& kernels) {
  constexpr const char* kNames[] = {"int8", "4 bits", "4 bits, minimum"};
  for (const BlockFormat format : {BlockFormat::kInt8, BlockFormat::kInt4, BlockFormat::kInt4Min}) {
    QuantizedWeight weight(kColumns, format, kOutputs);
    const auto row = noise(kColumns);
    for (int64_t r = 0; r < kOutputs; ++r) weight.set_values(r, 1, row.data());
    for (const int64_t rows : kRows) {
      const double seconds = best_time(rows, [&](const float* x, float* y) { multiply(weight, x, rows, y, kernels); });
      print(kernels.name, kNames[static_cast<int>(format)], rows, seconds, weight.bytes());
    }
  }
}

void run(int threads) {
  ThreadTeam team(threads);
  const TeamScope scope(team);
  fmt::print("{} thread(s); memory reads at {:.1f} GB/s\n", threads, measure_read_bandwidth(int64_t{512} << 20, 0.5) * 1e-9);
  measure_floats();
  const tensor::CpuFeatures cpu = tensor::cpu_features();
  if (cpu.avx2 && cpu.f16c) measure(avx2_tile_kernels());
  if (cpu.avx512_vnni) measure(avx512_tile_kernels());
  if (has_amx()) measure(amx_tile_kernels());
}

}  // namespace
}  // namespace penstock::kernels

int main(int argc, char** argv) {
  CLI::App app("Products with served weights: bytes of weights and operations per second");
  int threads = 2;
  app.add_option("--threads", threads, "Threads that compute")->check(CLI::Range(1, 1024))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  penstock::kernels::run(threads);
  return 0;
}
