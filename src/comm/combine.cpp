#include "comm/combine.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/error.h"

namespace penstock::comm {
namespace {

constexpr int64_t kBlock = 4096;  // elements at a time: stays in the first-level cache

// Nothing of what is no number or beyond all numbers: it is reported, and not for ever.
float rounded_off(float value, c10::BFloat16 rounded) {
  const float lost = value - static_cast<float>(rounded);
  return std::isfinite(lost) ? lost : 0;
}

template <Reduce op, typename T, typename Wide>
void combine_as(std::span<const void* const> sources, void* target, int64_t count, float* lost) {
  alignas(64) Wide results[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(sources.front()) + begin;
    for (int64_t i = 0; i < n; ++i) results[i] = static_cast<Wide>(first[i]);
    for (const void* source : sources.subspan(1)) {
      const T* other = static_cast<const T*>(source) + begin;
      for (int64_t i = 0; i < n; ++i) {
        const auto value = static_cast<Wide>(other[i]);
        if constexpr (op == Reduce::kSum) {
          results[i] = static_cast<Wide>(results[i] + value);
        } else {
          // A number that is none wins, as in LibTorch.
          results[i] = results[i] < value || value != value ? value : results[i];
        }
      }
    }
    T* result = static_cast<T*>(target) + begin;
    for (int64_t i = 0; i < n; ++i) result[i] = static_cast<T>(results[i]);
    if constexpr (std::is_same_v<T, c10::BFloat16>) {
      for (int64_t i = 0; lost != nullptr && i < n; ++i) lost[begin + i] += rounded_off(results[i], result[i]);
    }
  }
}

template <typename T, typename Wide = T>
void combine_with(std::span<const void* const> sources, void* target, int64_t count, Reduce op, float* lost = nullptr) {
  if (op == Reduce::kSum) {
    combine_as<Reduce::kSum, T, Wide>(sources, target, count, lost);
  } else {
    combine_as<Reduce::kMax, T, Wide>(sources, target, count, lost);
  }
}

}  // namespace

void combine(std::span<const void* const> sources, void* target, int64_t count, at::ScalarType dtype, Reduce op, float* lost) {
  PENSTOCK_CHECK(lost == nullptr || (dtype == at::kBFloat16 && op == Reduce::kSum), "nothing is lost in {}", c10::toString(dtype));
  switch (dtype) {
    case at::kFloat: return combine_with<float>(sources, target, count, op);
    case at::kDouble: return combine_with<double>(sources, target, count, op);
    case at::kBFloat16: return combine_with<c10::BFloat16, float>(sources, target, count, op, lost);
    case at::kLong: return combine_with<int64_t>(sources, target, count, op);
    case at::kInt: return combine_with<int32_t>(sources, target, count, op);
    case at::kByte: return combine_with<uint8_t>(sources, target, count, op);
    default: PENSTOCK_CHECK(false, "a reduction of {}", c10::toString(dtype));
  }
}

void round_with_residual(const at::Tensor& values, const at::Tensor& residual, const at::Tensor& rounded) {
  const float* value = values.data_ptr<float>();
  auto* left = residual.data_ptr<float>();
  auto* result = rounded.data_ptr<c10::BFloat16>();
  for (int64_t i = 0; i < values.numel(); ++i) {
    const float wanted = value[i] + left[i];
    result[i] = static_cast<c10::BFloat16>(wanted);
    left[i] = rounded_off(wanted, result[i]);
  }
}

}  // namespace penstock::comm
