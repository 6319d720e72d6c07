#include "tensor/heap.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace penstock::tensor {

void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kLargest = 1 << 30, kOlderLargest = 32 << 20;  // glibc before 2.35 refuses more
  if (mallopt(M_MMAP_THRESHOLD, kLargest) == 0) mallopt(M_MMAP_THRESHOLD, kOlderLargest);
  mallopt(M_TRIM_THRESHOLD, kLargest);
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace penstock::tensor
