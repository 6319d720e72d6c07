#include "apps/worker/rank_setup.h"

#include <csignal>

#include "base/log.h"
#include "tensor/blas_check.h"

namespace penstock {
namespace {

std::atomic<bool> stop_asked{false};  // written by a signal handler, which can reach nothing but a global
static_assert(std::atomic<bool>::is_always_lock_free);

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
  struct sigaction action {};
  action.sa_handler = [](int) { stop_asked = true; };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  return stop_asked;
}

int exit_code_of(const Error& error) {
  const bool correctable = error.code() == Code::kInvalidArgument || error.code() == Code::kNotFound || error.code() == Code::kFailedPrecondition ||
                           error.code() == Code::kUnimplemented;
  return correctable ? 2 : 1;
}

}  // namespace penstock
