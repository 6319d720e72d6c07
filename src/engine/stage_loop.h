#pragma once
// What every rank of a worker group but the first does: wait for a plan, compute, pass on.
//
// Note [Ranks of a served model]
// A stage is one rank, or several that share its layers (model/tensor_ranks.h). The first of them leads: it receives plans and activations, hands both to those that follow
// it, and passes on what comes out, which all of them have. So messages between stages are as many as without followers, and all ranks of a stage compute the
// same steps in the same order.
#include <functional>

#include "comm/communicator.h"
#include "engine/stage_runner.h"

namespace penstock::engine {

// The first stage sends at least a kIdle plan this often, so a stage that hears nothing for kSilence knows that it is gone.
inline constexpr seconds kIdleInterval{5};
inline constexpr seconds kSilence{60};

// The number of pages that all ranks have memory for; each gets it and makes its cache. Collective: every rank calls it once, at its start. `stages`: the
// leaders of all stages; null on a rank that follows. Throws Error kResourceExhausted where not one sequence fits, and kUnavailable on the other ranks.
int make_caches(StageRunner& runner, comm::Communicator* stages, seconds timeout);

// Makes the cache together with the other stages, then computes. Returns after a kStop plan. Throws Error (kDeadlineExceeded, kUnavailable) naming the stage that it waited for,
// and what the last stage's SamplingThread throws. `timeout`: deadline of a wait within a step. `on_sampling_failure`: told at once, from that thread, while
// this one may wait for a plan that cannot come before the failed step is answered.
void run_stage(StageRunner& runner, comm::Communicator& stages, int max_sequences, seconds timeout,
               const std::function<void(const Error&)>& on_sampling_failure = {});

// The same for a rank that shares its stage's layers with a leader: computes the steps that it is told. REQUIRES: runner.tensor(), with a rank above 0.
void follow_stage(StageRunner& runner, int max_sequences, seconds timeout);

}  // namespace penstock::engine
