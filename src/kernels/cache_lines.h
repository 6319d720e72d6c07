#pragma once
// Memory that begins with a cache line, as vectors and matrix registers like to be loaded. Private to src/kernels; torch-free.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace penstock::kernels {

inline constexpr std::align_val_t kCacheLine{64};

struct FreeLines {
  void operator()(void* memory) const { ::operator delete(memory, kCacheLine); }
};

template <typename T>
using Lines = std::unique_ptr<T[], FreeLines>;

// Not initialized. For types without a constructor.
template <typename T>
Lines<T> make_lines(int64_t count) {
  return Lines<T>(static_cast<T*>(::operator new(static_cast<size_t>(count) * sizeof(T), kCacheLine)));
}

}  // namespace penstock::kernels
