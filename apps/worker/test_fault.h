#pragma once
// For tests only: makes a rank die or stand still at a place that they choose. CONTRIBUTING.md, "Tests", has the words.
#include <string>

#include "base/flight_recorder.h"

namespace penstock {

// Does as PENSTOCK_TEST_FAULT says, if it is set and means this rank: now, when it names the rendezvous, else when `recorder` is told that the
// place was reached. To be called before anything is recorded. Throws Error kInvalidArgument when the variable makes no sense.
void install_test_fault(FlightRecorder& recorder, int rank);

}  // namespace penstock
