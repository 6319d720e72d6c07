#pragma once
// What headers need of LibTorch: a name. An incomplete at::Tensor may be a parameter, a return type, a span or vector of it.
namespace at {
class Tensor;
}

namespace penstock {
using at::Tensor;
}
