#pragma once
// How the process's heap treats the tensors of one micro-batch after the other.

namespace penstock::tensor {

// Memory of freed tensors stays with the process instead of going back to the system, which would hand it out again page by page, cleared, to the
// next micro-batch: 5 % of a training step (docs/benchmarks.md). For processes that train; not for libraries to call. Does nothing without glibc.
// Threads: before others allocate.
void keep_freed_memory();

}  // namespace penstock::tensor
