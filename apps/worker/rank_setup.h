#pragma once
// What both kinds of ranks begin with.
#include <atomic>
#include <string>

#include "base/error.h"
#include "cluster/launch_env.h"

namespace penstock {

// This process's place by its launcher's environment; a world of one without a launcher. Throws Error.
[[nodiscard]] cluster::RankInfo this_rank();

// Logs once, on rank 0, what LibTorch computes with; a slow BLAS as a warning.
void log_blas(int rank);

// Set by SIGTERM and SIGINT from the call on; SIGUSR1 is blocked. To be called once, before the process has other threads: they inherit the
// blocked signals.
[[nodiscard]] const std::atomic<bool>& watch_stop_signals();

// 2 for what the user can correct, else 1.
[[nodiscard]] int exit_code_of(const Error& error);

}  // namespace penstock
