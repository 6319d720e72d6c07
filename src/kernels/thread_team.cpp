#include "kernels/thread_team.h"

#include <omp.h>

#include <utility>

#include "base/clock.h"
#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace penstock::kernels {
namespace {

// How long a thread watches before it sleeps: longer than what lies between two products of one step, shorter than a scheduler's slice.
constexpr microseconds kWatch{100};

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Watches until done() or for kWatch; what done() says last.
template <typename Done>
bool watch(const Done& done) {
  const auto end = Clock::now() + kWatch;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause();
    }
  } while (Clock::now() < end);
  return done();
}

}  // namespace

ThreadTeam::ThreadTeam(int threads) {
  PENSTOCK_CHECK(threads >= 1, "a team of {} threads", threads);
  for (int i = 1; i < threads; ++i) helpers_.emplace_back([this] { help(); });
}

ThreadTeam::~ThreadTeam() {
  stop_ = true;
  ++loops_;
  loops_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadTeam::run(int64_t pieces, const std::function<void(int64_t)>& piece) {
  if (helpers_.empty() || pieces <= 1) {
    for (int64_t i = 0; i < pieces; ++i) piece(i);
    return;
  }
  piece_ = &piece;
  pieces_ = pieces;
  left_to_finish_ = pieces;
  left_to_take_ = pieces;
  ++loops_;
  loops_.notify_all();
  while (take_piece()) {
  }
  wait_for_helpers();
  if (!failed_.exchange(false)) return;
  MutexLock lock(mutex_);
  std::rethrow_exception(std::exchange(failure_, nullptr));
}

// Runs the next piece, if there is one that nobody has taken.
bool ThreadTeam::take_piece() {
  int64_t left = left_to_take_.load();
  do {
    if (left == 0) return false;
  } while (!left_to_take_.compare_exchange_weak(left, left - 1));
  if (!failed_) {
    try {
      (*piece_)(pieces_ - left);
    } catch (...) {
      MutexLock lock(mutex_);
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }
  if (left_to_finish_.fetch_sub(1) == 1) left_to_finish_.notify_one();
  return true;
}

// Ends with the pieces under way; helpers wait for nobody while they have one.
void ThreadTeam::wait_for_helpers() {
  if (watch([this] { return left_to_finish_ == 0; })) return;
  for (int64_t left = left_to_finish_; left != 0; left = left_to_finish_) left_to_finish_.wait(left);
}

void ThreadTeam::help() {
  omp_set_num_threads(1);  // of this thread's loops: pieces call libraries that would share them out again
  for (;;) {
    const uint32_t seen = loops_;
    while (take_piece()) {
    }
    if (stop_) return;
    if (!watch([&] { return loops_ != seen; })) loops_.wait(seen);
  }
}

}  // namespace penstock::kernels
