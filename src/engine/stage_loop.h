#pragma once
// What every rank of a worker group but the first does: wait for a plan, compute, pass on.
#include "comm/communicator.h"
#include "engine/stage_runner.h"

namespace penstock::engine {

// The first stage sends at least a kIdle plan this often, so a stage that hears nothing for kSilence knows that it is gone.
inline constexpr seconds kIdleInterval{5};
inline constexpr seconds kSilence{60};

// The number of pages that all stages have memory for; each gets it and makes its cache. Collective: every stage calls it once, at its start.
// Throws Error kResourceExhausted where not one sequence fits, and kUnavailable on the other stages.
int make_caches(StageRunner& runner, comm::Communicator& stages, seconds timeout);

// Makes the cache together with the other stages, then computes. Returns after a kStop plan. Throws Error (kDeadlineExceeded, kUnavailable) naming the stage that it waited for.
// `timeout`: deadline of a wait within a step.
void run_stage(StageRunner& runner, comm::Communicator& stages, int max_sequences, seconds timeout);

}  // namespace penstock::engine
