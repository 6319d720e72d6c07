#pragma once
// Messages and collectives between the ranks of one group. The only door to c10d; hides what differs between LibTorch versions.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tensor/tensor_fwd.h"

namespace penstock::comm {

// A pending operation. The tensors of the operation stay alive and untouched until wait() has returned.
class Work {
 public:
  virtual ~Work() = default;
  // Blocks until done. Throws Error kUnavailable (peer gone) or kDeadlineExceeded, naming operation, group, ranks and tag.
  virtual void wait(Deadline deadline) = 0;
  // Answers at once; true also when the operation has failed (wait() then throws).
  [[nodiscard]] virtual bool done() = 0;
};
using WorkPtr = std::unique_ptr<Work>;

enum class Reduce { kSum, kMax };

// One rank's view of a group of ranks, 0 … size()-1.
//
// Threads:   methods may be called from any thread, but the collectives of one group must be called in the same order
//            on every rank, so one thread per group calls them. send and recv match by (peer, tag), first come first served.
// Blocking:  no method waits for a peer; the Work does.
// Buffering: a send completes without its receive having been posted as far as the caller's thread is concerned:
//            the caller keeps the Work (and the tensor) and goes on. Any number of sends may be pending.
// Tensors:   contiguous, on the CPU, or on a GPU (they travel through host memory: staged_communicator.h); float32, float64, bfloat16, int64, int32, uint8. A
//            receive must match shape and dtype exactly (the pipeline sends a header first).
// Errors:    after the first failed operation the group is dead: every later call throws that first error at once.
class Communicator {
 public:
  virtual ~Communicator() = default;
  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;
  [[nodiscard]] virtual const std::string& name() const = 0;  // for messages, e.g. "pipe[1]"

  [[nodiscard]] virtual WorkPtr send(const Tensor& tensor, int to, int tag) = 0;
  [[nodiscard]] virtual WorkPtr recv(Tensor& tensor, int from, int tag) = 0;
  // In place; every rank gets the same bits. kSum for all dtypes (bfloat16 sums in float32), kMax for float and integer.
  [[nodiscard]] virtual WorkPtr all_reduce(Tensor& tensor, Reduce op) = 0;
  [[nodiscard]] virtual WorkPtr broadcast(Tensor& tensor, int root) = 0;
  // The two halves of an all_reduce(kSum), in place in a flat tensor that is cut into a part for each rank: that of rank r is [offsets[r], offsets[r + 1]).
  // offsets: size() + 1 numbers of elements, rising (parts may be empty) from 0 to numel(), the same on every rank. Dtypes as all_reduce.
  // reduce_scatter: this rank's part becomes the sum, with the bits that an all_reduce would give it; the other parts are scratch afterwards.
  // all_gather: every part becomes that of its rank. Each sends numel() · (n - 1) / n elements a rank, half of an all_reduce.
  [[nodiscard]] virtual WorkPtr reduce_scatter(Tensor& flat, std::span<const int64_t> offsets) = 0;
  [[nodiscard]] virtual WorkPtr all_gather(Tensor& flat, std::span<const int64_t> offsets) = 0;
  [[nodiscard]] virtual WorkPtr barrier() = 0;

  // Zeroed memory, uint8 [bytes] or a little more, in which this group's reductions and gathers are fastest: shared by processes of one host,
  // plain elsewhere. Collective: every rank asks for as much, and uses the same stretches of it. Lives as long as a tensor in it.
  [[nodiscard]] virtual Tensor reduction_buffer(int64_t bytes, Deadline deadline);

  // all_reduce(kSum) of float32 that travels as bfloat16, in half the bytes. What rounding takes from this rank's values, and from the sums that it makes, is
  // added to `residual` (float32, as large, zero before the first call), which the next call adds to this rank's values: nothing is lost in the long
  // run (error feedback; Seide et al., 1-bit SGD, 2014). Sums that stay in memory shared by all ranks are not rounded. Every rank gets the same bits.
  [[nodiscard]] virtual WorkPtr all_reduce_rounded(Tensor& tensor, Tensor& residual) = 0;

  // Bytes of tensors that this rank has handed to the network for this group's sends, reductions and gathers; 0 where nothing is sent.
  [[nodiscard]] virtual int64_t bytes_sent() const { return 0; }

  // A group of some of this group's ranks (listed by this group's numbering, ascending); nullptr on ranks that are not in it.
  // Collective over this group: every rank calls it with the same arguments. Blocks until connected or the deadline.
  [[nodiscard]] virtual std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) = 0;
};

}  // namespace penstock::comm
