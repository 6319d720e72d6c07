#pragma once
// A Communicator that also takes tensors of a GPU: they travel through host memory.
#include <memory>

#include "comm/communicator.h"

namespace penstock::comm {

// What is copied: tensors of a GPU; or all, to test the copying where there is none.
enum class Staged { kOfDevices, kAll };

// `inner` for tensors anywhere; so are the groups that it is split into. A tensor of a GPU is copied to the host, in page-locked memory, where an operation is posted, after the
// kernels that the calling thread has given to its stream, and back where its Work is waited for, before those that the waiting thread gives later: posting and
// waiting take as long as those copies. Tensors in host memory are handed on as they are.
//
// reduction_buffer: host memory, as always.
// Threads, blocking, errors: those of `inner`.
[[nodiscard]] std::unique_ptr<Communicator> make_staged(std::unique_ptr<Communicator> inner, Staged which = Staged::kOfDevices);

// What such a one hands its calls to; `group` itself where it is another.
[[nodiscard]] Communicator& unstaged(Communicator& group);

}  // namespace penstock::comm
