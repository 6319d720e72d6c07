// Our own CUDA kernels against LibTorch's operations on this machine's GPU: time, and bytes that must move over time, beside a copy's (docs/benchmarks.md).
// The shapes are those of a decode step of models of 135 million to 8 billion parameters. Each launch takes another of several weights, so that none is
// read from the cache.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/clock.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/head_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/swiglu.h"
#include "tensor/device.h"

namespace penstock::kernels {
namespace {

const at::Device kGpu(at::kCUDA, 0);

at::TensorOptions floats() { return at::TensorOptions(kGpu).dtype(at::kFloat); }

// Microseconds of one call, of many in a row: as in a step, where the next launch is queued while the GPU works. The median of several measurements.
double time_of(const std::function<void(int)>& call) {
  constexpr int kCalls = 50, kMeasurements = 7;
  for (int i = 0; i < 5; ++i) call(i);
  std::vector<double> times;
  for (int m = 0; m < kMeasurements; ++m) {
    tensor::synchronize(kGpu);
    const auto start = Clock::now();
    for (int i = 0; i < kCalls; ++i) call(i);
    tensor::synchronize(kGpu);
    times.push_back(to_seconds(Clock::now() - start) / kCalls * 1e6);
  }
  std::ranges::sort(times);
  return times[kMeasurements / 2];
}

double copy_rate() {
  const int64_t bytes = int64_t{1} << 30;
  const at::Tensor from = at::randn({bytes / 4}, floats());
  at::Tensor to = at::empty_like(from);
  return 2.0 * static_cast<double>(bytes) / time_of([&](int) { to.copy_(from); }) * 1e-3;
}

class Table {
 public:
  explicit Table(double copy) : copy_(copy) {
    fmt::print("a copy moves {:.0f} GB/s, read and written\n{:<34} {:>10} {:>10} {:>8} {:>9} {:>8}\n", copy, "", "LibTorch", "ours", "", "ours", "of copy");
  }
  void row(const std::string& name, int64_t bytes, const std::function<void(int)>& libtorch, const std::function<void(int)>& ours) const {
    const double before = time_of(libtorch), after = time_of(ours), rate = static_cast<double>(bytes) / after * 1e-3;
    fmt::print("{:<34} {:>7.1f} us {:>7.1f} us {:>7.1f}x {:>5.0f} GB/s {:>7.0f}%\n", name, before, after, before / after, rate, 100 * rate / copy_);
  }

 private:
  const double copy_;
};

void measure_products(const Table& table) {
  struct Shape {
    int64_t outputs, width;
  };
  for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
    for (const Shape& s : {Shape{960, 576}, Shape{3072, 576}, Shape{576, 1536}, Shape{49152, 576}, Shape{4096, 4096}, Shape{28672, 4096}}) {
      const int64_t bytes = s.outputs * s.width * (type == at::kFloat ? 4 : 2), copies = std::clamp<int64_t>((int64_t{256} << 20) / bytes, 1, 64);
      std::vector<at::Tensor> weights;
      for (int64_t i = 0; i < copies; ++i) weights.push_back(at::randn({s.outputs, s.width}, floats()).to(type));
      for (const int64_t rows : {1, 4, 8}) {
        const at::Tensor x = at::randn({rows, s.width}, floats());
        const auto weight = [&](int i) -> const at::Tensor& { return weights[static_cast<size_t>(i % copies)]; };
        table.row(fmt::format("product {}x{} {} {} row(s)", s.outputs, s.width, type == at::kFloat ? "fp32" : "bf16", rows), bytes,
                  [&](int i) { at::mm(x.to(type), weight(i).t()).to(at::kFloat); }, [&](int i) { (void)cuda::product(x, weight(i), {}); });
      }
    }
  }
}

void measure_rows(const Table& table) {
  for (const int64_t rows : {1, 32, 512}) {
    const at::Tensor x = at::randn({rows, 4096}, floats()), w = at::randn({4096}, floats()), gate_up = at::randn({rows, 2 * 14336}, floats());
    const AttentionShape shape{32, 8, 128};
    const at::Tensor qkv = at::randn({rows, shape.row()}, floats()), q = at::randn({128}, floats()), k = at::randn({128}, floats());
    table.row(fmt::format("rms_norm {}x4096", rows), 8 * x.numel(), [&](int) { rms_norm_reference(x, w, 1e-5); }, [&](int) { (void)cuda::rms_norm(x, w, 1e-5); });
    table.row(fmt::format("head_norm {}x6144", rows), 8 * qkv.numel(), [&](int) { head_norm_reference(qkv, shape, q, k, 1e-5); },
              [&](int) { (void)cuda::head_norm(qkv, shape, q, k, 1e-5); });
    table.row(fmt::format("swiglu {}x14336", rows), 6 * gate_up.numel(), [&](int) { swiglu_reference(gate_up); }, [&](int) { (void)cuda::swiglu(gate_up); });
  }
}

int run() {
  if (tensor::num_gpus() == 0) {
    fmt::print("no GPU: nothing to measure\n");
    return 0;
  }
  if (!cuda::built()) {
    fmt::print("built without CUDA kernels of our own (PENSTOCK_CUDA_KERNELS): nothing to measure\n");
    return 0;
  }
  at::NoGradGuard no_grad;
  const Table table(copy_rate());
  measure_products(table);
  measure_rows(table);
  return 0;
}

}  // namespace
}  // namespace penstock::kernels

int main() { return penstock::kernels::run(); }
