#pragma once
// Which rank did not arrive at which operation, from the dumps of all ranks. Pure.
#include <span>
#include <string>
#include <vector>

#include "cluster/flight_dump.h"

namespace penstock::cluster {

struct FlightFindings {
  // "step 41: ranks 0, 2 and 3 wait in all_reduce(sum) #5 of data[0] (bucket 2); rank 1 is still in forward of micro-batch 3 on stage 0 since 12.4 s"
  std::string headline;
  std::vector<std::string> ranks;  // one line for each rank of the world: what it is in, since when
  std::vector<int> culprits;       // ranks that others wait for, directly or through others, and that wait for nobody
};

// A rank waits for the members of a group that have not called the collective that it is in, or for the other end of a message. Who waits for nobody
// and is waited for is the cause: computing, between operations, or without a dump (its process is stopped or gone). Without such a rank, the
// ranks wait for each other in a circle. Collectives of the same number that differ in kind or size are named before anything else.
// Dumps older than a minute before the newest count as absent. REQUIRES: at least one dump.
[[nodiscard]] FlightFindings analyse_flight(std::span<const FlightDump> dumps);

// Headline and ranks as lines of text, indented by two.
[[nodiscard]] std::string to_text(const FlightFindings& findings);

}  // namespace penstock::cluster
