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

// `inner` with every point-to-point message held back as the shape says; collectives pass as they are. A sender's messages leave one after another.
//
// Threads: as Communicator; owns one thread, which posts the sends of `inner` when their time has come.
// A Work of send() waits for that moment and for the inner send. The destructor drops messages that have not left yet.
// Groups made by split() are shaped alike, each on its own. `inner` outlives the link.
[[nodiscard]] std::unique_ptr<Communicator> make_shaped_link(Communicator& inner, const LinkShape& shape);

}  // namespace penstock::comm
