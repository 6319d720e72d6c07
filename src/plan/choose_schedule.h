#pragma once
// Plain or eager 1F1B: what the links decide.
#include <span>
#include <string>

#include "plan/simulation.h"

namespace penstock::plan {

inline constexpr const char* kAutoSchedule = "auto";  // in configurations: chosen by choose_1f1b()
inline constexpr const char* kProfiled = "profiled";  // partition method: layers weigh their measured time

// "eager-1f1b" when plain 1F1B would take over 2 % longer with these costs (one per rank) and hops, else "1f1b", which keeps fewer activations.
[[nodiscard]] std::string choose_1f1b(int num_microbatches, std::span<const StageCosts> costs, double hop_latency);

}  // namespace penstock::plan
