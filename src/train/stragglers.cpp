#include "train/stragglers.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::train {
namespace {

// The lower one of two in the middle.
double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void sort_slowest_first(std::vector<Straggler>& stragglers) {
  std::ranges::sort(stragglers, [](const Straggler& a, const Straggler& b) { return a.factor != b.factor ? a.factor > b.factor : a.rank < b.rank; });
}

}  // namespace

StragglerWatch::StragglerWatch(const plan::Topology& mesh) : ranks_(static_cast<size_t>(mesh.size())) {
  for (const auto& replicas : mesh.groups(plan::Axis::kData)) {
    for (const int rank : replicas) {
      for (const int peer : replicas) {
        if (peer != rank) ranks_[static_cast<size_t>(rank)].peers.push_back(peer);
      }
    }
  }
}

bool StragglerWatch::add(const std::vector<double>& compute_seconds) {
  PENSTOCK_CHECK(compute_seconds.size() == ranks_.size(), "times of {} ranks, expected {}", compute_seconds.size(), ranks_.size());
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    if (rank.peers.empty()) continue;
    std::vector<double> others;
    for (const int peer : rank.peers) others.push_back(compute_seconds[static_cast<size_t>(peer)]);
    const double median = median_of(std::move(others));
    rank.seconds += compute_seconds[i];
    rank.median_seconds += median;
    rank.slow_steps += compute_seconds[i] > kSlow * median ? 1 : 0;
  }
  if (++steps_ < kWindow) return false;
  end_window();
  return true;
}

void StragglerWatch::end_window() {
  now_.clear();
  ++windows_;
  steps_ = 0;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    Rank& rank = ranks_[i];
    if (rank.median_seconds > 0 && rank.slow_steps >= kMost * kWindow) {
      const double factor = rank.seconds / rank.median_seconds;
      now_.push_back({static_cast<int>(i), factor});
      ++rank.slow_windows;
      rank.factors += factor;
    }
    rank.seconds = rank.median_seconds = 0;
    rank.slow_steps = 0;
  }
  sort_slowest_first(now_);
}

std::vector<Straggler> StragglerWatch::persistent() const {
  std::vector<Straggler> found;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const Rank& rank = ranks_[i];
    if (rank.slow_windows > 0 && 2 * rank.slow_windows >= windows_) found.push_back({static_cast<int>(i), rank.factors / rank.slow_windows});
  }
  sort_slowest_first(found);
  return found;
}

}  // namespace penstock::train
