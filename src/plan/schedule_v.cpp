// Schedules whose stages go through the ranks there and back: rank r holds stage r (chunk 0) and stage 2p-1-r (chunk 1).
#include <algorithm>
#include <deque>
#include <utility>

#include "base/error.h"
#include "plan/schedule_makers.h"

namespace penstock::plan {

namespace {

// Appends actions chunk by chunk; each kind of each chunk takes its micro-batches in rising order.
class TwoChunkList {
 public:
  TwoChunkList(const ScheduleShape& shape, int rank) : stage_{rank, 2 * shape.ranks - 1 - rank} {}

  void forward(int chunk) { list_.push_back({ActionKind::kForward, stage_[chunk], forwards_[chunk]++}); }
  void backward(int chunk) { list_.push_back({ActionKind::kBackward, stage_[chunk], backwards_[chunk]++}); }
  void input_grad(int chunk) {
    pending_.emplace_back(chunk, backwards_[chunk]);
    list_.push_back({ActionKind::kInputGrad, stage_[chunk], backwards_[chunk]++});
  }
  void backward_or_input_grad(int chunk, bool split) { split ? input_grad(chunk) : backward(chunk); }
  // Forward of one chunk and backward of the other in one slot.
  void joined(int forward_chunk) {
    forward(forward_chunk);
    list_.back().joined = true;
    backward(1 - forward_chunk);
  }
  // The oldest weight gradient that is pending, if there is one; with a chunk, the oldest of that chunk.
  void weight_grad() {
    if (!pending_.empty()) take_weight_grad(pending_.begin());
  }
  void weight_grad(int chunk) {
    const auto oldest = std::find_if(pending_.begin(), pending_.end(), [&](const auto& p) { return p.first == chunk; });
    if (oldest != pending_.end()) take_weight_grad(oldest);
  }
  [[nodiscard]] bool pending(int chunk) const {
    return std::any_of(pending_.begin(), pending_.end(), [&](const auto& p) { return p.first == chunk; });
  }
  [[nodiscard]] int forwards(int chunk) const { return forwards_[chunk]; }
  [[nodiscard]] ActionList take() { return std::move(list_); }

 private:
  void take_weight_grad(std::deque<std::pair<int, int>>::iterator which) {
    list_.push_back({ActionKind::kWeightGrad, stage_[which->first], which->second});
    pending_.erase(which);
  }

  const int stage_[2];
  int forwards_[2] = {0, 0};
  int backwards_[2] = {0, 0};
  std::deque<std::pair<int, int>> pending_;  // chunk, micro-batch
  ActionList list_;
};

}  // namespace

// Built for at least 2p-1 micro-batches, which fill the pipeline; those that are not there are left out at the end.
ActionList zb_v_list(const ScheduleShape& shape, int rank) {
  const int p = shape.ranks;
  const int filled = std::max(2 * p - 1, shape.microbatches);
  TwoChunkList list(shape, rank);
  const auto split_backward = [&](int chunk) {
    list.input_grad(chunk);
    list.weight_grad(chunk);
  };
  for (int i = 0; i < 2 * (p - rank) - 1; ++i) list.forward(0);
  for (int i = 0; i < rank; ++i) {
    list.forward(1);
    list.forward(0);
  }
  for (int i = 0; i < p - rank; ++i) {
    list.forward(1);
    split_backward(1);
  }
  while (list.forwards(1) < list.forwards(0) || list.forwards(0) < filled) {
    if (list.forwards(0) < filled) list.forward(0);
    split_backward(0);
    list.forward(1);
    split_backward(1);
  }
  for (int i = 0; i < rank; ++i) {
    list.input_grad(0);
    list.input_grad(1);
  }
  for (int i = 0; i < p - rank; ++i) {
    list.input_grad(0);
    list.weight_grad(0);
  }
  while (list.pending(1)) list.weight_grad(1);
  while (list.pending(0)) list.weight_grad(0);
  ActionList actions = list.take();
  std::erase_if(actions, [&](const Action& a) { return a.microbatch >= shape.microbatches; });
  return actions;
}

std::string dualpipev_problem(const ScheduleShape& shape) {
  if (shape.microbatches >= 2 * shape.ranks) return {};
  return fmt::format("microbatches: dualpipev needs at least as many micro-batches as stages, 2 x {} ranks = {}; found {}", shape.ranks,
                     2 * shape.ranks, shape.microbatches);
}

ActionList dualpipev_list(const ScheduleShape& shape, int rank) {
  const int before_end = shape.ranks - rank - 1;  // ranks between this one and the last
  TwoChunkList list(shape, rank);
  for (int i = 0; i < 2 * before_end; ++i) list.forward(0);
  for (int i = 0; i < rank + 1; ++i) {
    list.forward(0);
    list.forward(1);
  }
  for (int i = 0; i < before_end; ++i) {
    list.input_grad(1);
    list.weight_grad();
    list.forward(1);
  }
  for (int i = 0; i < shape.microbatches - 2 * shape.ranks + rank + 1; ++i) {
    if (i == 0 && before_end == 0) {  // apart on the last rank: its neighbour gets the gradient earlier
      list.forward(0);
      list.backward(1);
    } else {
      list.joined(0);
    }
    list.joined(1);
  }
  for (int i = 0; i < before_end; ++i) {
    list.backward(1);
    list.joined(1);
  }
  // In the second half weight gradients are put off, so that the ranks before get their gradients sooner.
  const int half = (rank + 1) / 2;
  for (int i = 0; i < rank + 1; ++i) {
    list.backward_or_input_grad(1, i > half || (i == half && rank % 2 == 1));
    list.backward_or_input_grad(0, i >= half);
  }
  for (int i = 0; i < before_end; ++i) {
    list.weight_grad();
    list.input_grad(0);
  }
  for (int i = 0; i < rank + 1; ++i) list.weight_grad();
  return list.take();
}

}  // namespace penstock::plan
