// Our own CUDA kernels against LibTorch's operations on this machine's GPU: time, and bytes that must move over time, beside a copy's (docs/benchmarks.md).
// The shapes are those of a decode step of models of 135 million to 8 billion parameters. Each launch takes another of several weights, so that none is
// read from the cache.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/clock.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/head_norm.h"
#include "kernels/linear.h"
#include "kernels/rms_norm.h"
#include "kernels/step_rows.h"
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
                  [&](int i) { at::mm(x.to(type), weight(i).t()).to(at::kFloat); }, [&](int i) { (void)cuda::product({}, x, weight(i), {}); });
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

// Sequences of one step, each `rows` rows from position `start` on, with pages of bfloat16 of their own: several caches, so that none is read from the GPU's.
class Attention {
 public:
  Attention(const AttentionShape& shape, int sequences, int start, int rows)
      : shape_(shape), rotary_(start + rows, shape.head_size, 10000), by_libtorch_(shape, kGpu, StepRows::kMostElements, StepRows::By::kLibTorch), by_own_(shape, kGpu) {
    const int read = (start + rows + kPageTokens - 1) / kPageTokens, all = sequences * read;
    for (int i = 0; i < all; ++i) numbers_.push_back(static_cast<int32_t>(i * int64_t{7919} % all));
    for (int i = 0; i < sequences; ++i) sequences_.push_back({std::span(numbers_).subspan(static_cast<size_t>(i * read), static_cast<size_t>(read)), start, rows});
    bytes_ = 2 * int64_t{2} * all * kPageTokens * shape.kv_heads * shape.head_size;
    for (int64_t i = 0; i < std::clamp<int64_t>((int64_t{256} << 20) / bytes_, 1, 64); ++i) {
      keys_.push_back(at::randn({all, shape.kv_heads, shape.head_size, kPageTokens}, floats()).to(at::kBFloat16));
      values_.push_back(at::randn({all, shape.kv_heads, kPageTokens, shape.head_size}, floats()).to(at::kBFloat16));
    }
    by_libtorch_.begin(sequences_, all);
    by_own_.begin(sequences_, all);
  }
  [[nodiscard]] at::Tensor qkv() const { return at::randn({by_own_.count(), shape_.row()}, floats()); }
  at::Tensor by_libtorch(const at::Tensor& qkv, int i) { return run(qkv, i, by_libtorch_); }
  at::Tensor by_own(const at::Tensor& qkv, int i) { return run(qkv, i, by_own_); }
  [[nodiscard]] int64_t bytes() const { return bytes_; }

 private:
  at::Tensor run(const at::Tensor& qkv, int i, StepRows& rows) {
    const size_t copy = static_cast<size_t>(i) % keys_.size();
    return cached_attention(qkv, shape_, rotary_, sequences_, keys_[copy], values_[copy], &rows);
  }

  const AttentionShape shape_;
  const RotaryTable rotary_;
  StepRows by_libtorch_, by_own_;
  std::vector<int32_t> numbers_;
  std::vector<SequenceRows> sequences_;
  std::vector<at::Tensor> keys_, values_;
  int64_t bytes_ = 0;
};

void measure_attention(const Table& table) {
  struct Case {
    AttentionShape shape;
    int sequences, start, rows;
  };
  constexpr AttentionShape kSmall{9, 3, 64}, kLarge{32, 8, 128};
  for (const Case& c : {Case{kSmall, 1, 200, 1}, Case{kSmall, 1, 4095, 1}, Case{kLarge, 1, 4095, 1}, Case{kLarge, 32, 1023, 1}, Case{kSmall, 1, 0, 512}, Case{kLarge, 1, 0, 512}, Case{kLarge, 1, 3584, 512}}) {
    Attention attention(c.shape, c.sequences, c.start, c.rows);
    const at::Tensor qkv = attention.qkv();
    table.row(fmt::format("attention {}x{} {}x{} at {}", c.shape.heads, c.shape.head_size, c.sequences, c.rows, c.start), attention.bytes(),
              [&](int i) { attention.by_libtorch(qkv, i); }, [&](int i) { attention.by_own(qkv, i); });
  }
}

// A decoder block for one row at position 500: by LibTorch's operations about 45 launches, by ours 9.
void measure_block(const Table& table, const std::string& name, const AttentionShape& shape, int64_t hidden, int64_t width) {
  Attention attention(shape, 1, 500, 1);
  const auto bf16 = floats().dtype(at::kBFloat16);
  const at::Tensor qkv = at::randn({shape.row(), hidden}, bf16), out = at::randn({hidden, shape.heads * shape.head_size}, bf16);
  const at::Tensor gate_up = at::randn({2 * width, hidden}, bf16), down = at::randn({hidden, width}, bf16), norm = at::ones({hidden}, floats()), x = at::randn({1, hidden}, floats());
  const auto product = [](const at::Tensor& a, const at::Tensor& w) { return at::mm(a.to(at::kBFloat16), w.t()).to(at::kFloat); };
  const auto by_libtorch = [&](int i) {
    const at::Tensor h = x + product(attention.by_libtorch(product(rms_norm_reference(x, norm, 1e-5), qkv), i), out);
    return h + product(swiglu_reference(product(rms_norm_reference(h, norm, 1e-5), gate_up)), down);
  };
  const auto by_own = [&](int i) {
    const at::Tensor h = add_linear(x, attention.by_own(kernels::linear(rms_norm(x, norm, 1e-5), qkv), i), out, {}, {});
    return add_linear(h, gated_linear(rms_norm(h, norm, 1e-5), gate_up, {}, {}), down, {}, {});
  };
  const int64_t bytes = 2 * (qkv.numel() + out.numel() + gate_up.numel() + down.numel()) + attention.bytes();
  table.row("block of " + name, bytes, [&](int i) { (void)by_libtorch(i); }, [&](int i) { (void)by_own(i); });
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
  measure_attention(table);
  measure_block(table, "135 million weights", {9, 3, 64}, 576, 1536);
  measure_block(table, "8 billion weights", {32, 8, 128}, 4096, 14336);
  return 0;
}

}  // namespace
}  // namespace penstock::kernels

int main() { return penstock::kernels::run(); }
