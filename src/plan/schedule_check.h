#pragma once
// Proofs about a schedule that are made before its first step.
#include <optional>
#include <string>

#include "plan/schedule.h"

namespace penstock::plan {

// Carries the lists out on links that keep order and hold `link_capacity` messages for each ordered pair of ranks
// (0 = rendezvous: a send waits until its receive is reached). nullopt when every rank reaches its end; otherwise one
// sentence for each stuck rank: where it stands, and what it waits for. No time passes here: if this order of steps gets
// stuck, every order does.
[[nodiscard]] std::optional<std::string> find_deadlock(const Schedule& lowered, int link_capacity);

// nullopt when every stage runs every micro-batch forward exactly once, and backward exactly once (whole, or input gradient
// then weight gradient) after its forward; or no backward at all in the whole plan. Every action stands on the rank of its
// stage. In a plan with communication, each value that changes ranks is also sent once after it was made and received once
// before it is used. Otherwise the first violation, by rank and action.
[[nodiscard]] std::optional<std::string> check_complete(const Schedule& schedule);

// The schedule with communication (added where there is none), complete and free of deadlock even if every send waits for its receive.
// Throws Error kInvalidArgument with the first violation.
[[nodiscard]] Schedule proven(const Schedule& schedule);

}  // namespace penstock::plan
