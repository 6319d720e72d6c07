#pragma once
// The Communicator whose ranks are threads of one process: for tests, and for a job of one process.
#include <memory>
#include <vector>

#include "base/error.h"
#include "comm/communicator.h"

namespace penstock::comm {

// A group of `size` ranks; element r is rank r's view, for that rank's threads. They share one hub, which lives as long as any of them or any
// group split from them.
//
// Beside the contract of Communicator:
//   send:        copies the tensor, so its Work is complete at once.
//   all_reduce:  sums rank 0 + rank 1 + …, in this order: the same bits on every rank and in every run.
//   mistakes:    ranks that disagree about a collective (which, shape, dtype, root), and a receive whose shape or dtype is not the message's,
//                get Error kInvalidArgument naming both sides.
[[nodiscard]] std::vector<std::unique_ptr<Communicator>> make_local_group(int size);

// Makes every wait and call in the group of `member` and in all groups split from its hub throw `failure`, now and later; the first poison
// stays. For a rank that dies: the others learn why at once. REQUIRES: `member` comes from make_local_group or a split of it.
void poison_local_group(Communicator& member, const Error& failure);

}  // namespace penstock::comm
