#pragma once
// Ranks that compute persistently slower than their peers.
#include <vector>

#include "plan/topology.h"

namespace penstock::train {

struct Straggler {
  int rank = 0;
  double factor = 1;  // its computing time / the median of its peers'
  bool operator==(const Straggler&) const = default;
};

// A rank's peers are the other ranks with the same stages, one in each other replica: they do the same work. A rank is a straggler when it took
// more than kSlow times their median in most of the steps of a window. A step that one rank was disturbed in makes no straggler.
//
// Threads: one. All ranks see the same times, and come to the same names.
class StragglerWatch {
 public:
  static constexpr int kWindow = 20;     // steps
  static constexpr double kSlow = 1.3;   // times the median
  static constexpr double kMost = 0.75;  // of the window's steps

  explicit StragglerWatch(const plan::Topology& mesh);

  // Seconds that each rank of the world computed in a step. True: a window has ended, and the names may have changed.
  bool add(const std::vector<double>& compute_seconds);

  // Of the last whole window; the slowest first.
  [[nodiscard]] const std::vector<Straggler>& now() const { return now_; }
  // Over all windows: the factor is the mean of those in which a rank was one, and it was one in at least half of them.
  [[nodiscard]] std::vector<Straggler> persistent() const;

 private:
  struct Rank {
    std::vector<int> peers;
    double seconds = 0, median_seconds = 0;  // in this window
    int slow_steps = 0;
    int slow_windows = 0;
    double factors = 0;  // sum over slow windows
  };
  void end_window();

  std::vector<Rank> ranks_;
  int steps_ = 0, windows_ = 0;
  std::vector<Straggler> now_;
};

}  // namespace penstock::train
