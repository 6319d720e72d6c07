#pragma once
// The gated activation of Llama-family feed-forward layers (Shazeer 2020, arXiv 2002.05202).
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// gate_up [..., 2·I]: the gate in the first half of the last dim, the up projection in the second -> silu(gate) · up [..., I], float32.
Tensor swiglu(const Tensor& gate_up);

// The same by plain LibTorch operations.
Tensor swiglu_reference(const Tensor& gate_up);

}  // namespace penstock::kernels
