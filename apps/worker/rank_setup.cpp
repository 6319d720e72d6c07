#include "apps/worker/rank_setup.h"

#include <csignal>
#include <thread>

#include "base/log.h"
#include "tensor/blas_check.h"

namespace penstock {
namespace {

// Note [Signals]
// SIGTERM and SIGINT are blocked in every thread and taken by one that only waits for them: no system call of Gloo, gRPC or LibTorch is
// ever interrupted. The flag is a global because the thread, like the signals, lives as long as the process.
std::atomic<bool> stop_asked{false};

void wait_for_stop_signals(sigset_t signals) {
  for (int received = 0; sigwait(&signals, &received) == 0;) stop_asked = true;
}

}  // namespace

cluster::RankInfo this_rank() { return cluster::rank_from_environment().value().value_or(cluster::RankInfo{}); }

void log_blas(int rank) {
  if (rank != 0) return;
  const tensor::BlasInfo blas = tensor::detect_blas();
  if (const auto warning = tensor::blas_warning(blas)) {
    spdlog::warn("{}", *warning);
  } else {
    spdlog::debug("matrix products outside our kernels by {}", tensor::describe(blas));
  }
}

const std::atomic<bool>& watch_stop_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigset_t blocked = signals;
  sigaddset(&blocked, SIGUSR1);  // taken by a training rank's flight watch
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  std::thread(wait_for_stop_signals, signals).detach();
  return stop_asked;
}

int exit_code_of(const Error& error) {
  const bool correctable = error.code() == Code::kInvalidArgument || error.code() == Code::kNotFound || error.code() == Code::kFailedPrecondition ||
                           error.code() == Code::kUnimplemented;
  return correctable ? 2 : 1;
}

}  // namespace penstock
