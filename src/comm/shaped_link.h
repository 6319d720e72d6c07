#pragma once
// A slower network, emulated: for tests and benchmarks of what communication costs.
#include <memory>

#include "base/clock.h"
#include "comm/communicator.h"

namespace penstock::comm {

struct LinkShape {
  microseconds latency{0};       // from a send to its arrival
  double bytes_per_second = 0;   // of each rank's outgoing link; 0 = no limit
};

// `inner` with every message held back as the shape says; a rank's messages leave one after another. A broadcast counts as one message, an
// all-reduce as the 2(n-1) messages of a ring, each an n-th of the tensor, its halves as the n-1 messages that they are; barriers pass as they are.
//
// Threads: as Communicator; owns one thread, which posts the operations of `inner` when their time has come.
// A Work of send() waits for that moment and for the inner send. The destructor drops what has not left yet.
// Groups made by split() are shaped alike, each on its own. `inner` outlives the link, or is owned by it.
[[nodiscard]] std::unique_ptr<Communicator> make_shaped_link(Communicator& inner, const LinkShape& shape);
[[nodiscard]] std::unique_ptr<Communicator> make_shaped_link(std::unique_ptr<Communicator> inner, const LinkShape& shape);

}  // namespace penstock::comm
