#pragma once
// Threads that share the loops of one thread. Torch-free.
//
// Against OpenMP's: helpers watch for work for a fraction of a millisecond and then sleep, so an idle model costs nothing, and a thread that lost its core
// to another process finds the other core free as soon as its team sleeps; work is taken piece by piece, so that a slow thread takes fewer.
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace penstock::kernels {

// Threads: run() is called by one thread at a time, and not from within a piece.
class ThreadTeam {
 public:
  // `threads` >= 1, the caller's included.
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  // Calls piece(i) once for each i in [0, pieces), on any of the team's threads, in rising order of their starts; returns when all have returned.
  // The first exception is thrown again here; pieces that have not begun are then left out.
  void run(int64_t pieces, const std::function<void(int64_t)>& piece);

  [[nodiscard]] int threads() const { return static_cast<int>(helpers_.size()) + 1; }

 private:
  void help();
  bool take_piece();
  void wait_for_helpers();

  // The loop under way. Written by run() while no piece is left to take; read by whoever took a piece, which keeps the loop from ending.
  const std::function<void(int64_t)>* piece_ = nullptr;
  int64_t pieces_ = 0;

  std::atomic<int64_t> left_to_take_{0};
  std::atomic<int64_t> left_to_finish_{0};  // the caller sleeps on it
  std::atomic<uint32_t> loops_{0};          // helpers sleep on it
  std::atomic<bool> stop_{false};
  std::atomic<bool> failed_{false};
  Mutex mutex_;
  std::exception_ptr failure_ GUARDED_BY(mutex_);
  std::vector<std::thread> helpers_;
};

}  // namespace penstock::kernels
