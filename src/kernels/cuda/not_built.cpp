// In place of the kernels where there is no CUDA compiler, or LibTorch has no CUDA.
#include "base/error.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/paged_attention.h"

namespace penstock::kernels::cuda {
namespace {

[[noreturn]] void fail() { throw Bug("a CUDA kernel of ours was called, but this build has none (PENSTOCK_CUDA_KERNELS); callers ask takes() first"); }

}  // namespace

bool built() { return false; }
bool takes(const Tensor&) { return false; }
bool takes_product(const Tensor&, const Tensor&) { return false; }
Tensor rms_norm(const Tensor&, const Tensor&, double) { fail(); }
Tensor head_norm(const Tensor&, const AttentionShape&, const Tensor&, const Tensor&, double) { fail(); }
Tensor swiglu(const Tensor&) { fail(); }
Tensor product(const Tensor&, const Tensor&, const Tensor&, const Tensor&) { fail(); }
Tensor gated_product(const Tensor&, const Tensor&, const Tensor&) { fail(); }
bool takes_attention(const AttentionShape&, const at::Device&) { return false; }
StepTables::StepTables(std::span<const SequenceRows>, const AttentionShape&, const at::Device&) { fail(); }
Tensor StepTables::positions() const { fail(); }
Tensor paged_attention(const Tensor&, const AttentionShape&, const Tensor&, const StepTables&, Tensor&, Tensor&) { fail(); }

}  // namespace penstock::kernels::cuda
