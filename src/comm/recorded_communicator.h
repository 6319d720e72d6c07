#pragma once
// Writes every message and collective of a group, and of the groups split from it, into a flight recorder.
#include <memory>

#include "base/flight_recorder.h"
#include "comm/communicator.h"

namespace penstock::comm {

// `inner`, recorded, and whatever is split from it. `inner` is the whole world; it and the recorder outlive the result.
// Threads, blocking, errors: those of `inner`. An operation is finished in the recorder when its wait() has returned; one whose wait() threw
// stays unfinished.
[[nodiscard]] std::unique_ptr<Communicator> make_recorded(Communicator& inner, FlightRecorder& recorder);

// The recorder of a group that make_recorded() has made, or that was split from one; null of any other.
[[nodiscard]] FlightRecorder* recorder_of(const Communicator& group);
// For the recorder: the next collective of a recorded group reduces this bucket of gradients.
void next_is_bucket(Communicator& group, int bucket);

}  // namespace penstock::comm
