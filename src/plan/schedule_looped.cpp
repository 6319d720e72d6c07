// Schedules whose ranks hold v stages each, dealt out round robin: chunk c of rank r is stage c·p + r.
#include <algorithm>

#include "base/error.h"
#include "plan/schedule_makers.h"

namespace penstock::plan {

namespace {

// Micro-batches go through the chunks in rounds: g of them through the first chunk, the same g through the next ...
int rounds_of(const ScheduleShape& shape) { return std::max(1, shape.microbatches / shape.ranks); }

// The k-th forward or backward of a rank, each counted on its own.
class InterleavedOrder {
 public:
  InterleavedOrder(const ScheduleShape& shape, int rank) : shape_(shape), rank_(rank), group_(shape.microbatches / rounds_of(shape)) {}

  [[nodiscard]] Action forward(int k) const { return at(ActionKind::kForward, k, chunk_of(k)); }
  [[nodiscard]] Action backward(ActionKind kind, int k) const { return at(kind, k, shape_.chunks - 1 - chunk_of(k)); }
  [[nodiscard]] int group() const { return group_; }

 private:
  [[nodiscard]] int chunk_of(int k) const { return k / group_ % shape_.chunks; }
  [[nodiscard]] Action at(ActionKind kind, int k, int chunk) const {
    const int round = k / (group_ * shape_.chunks);
    return {kind, chunk * shape_.ranks + rank_, round * group_ + k % group_};
  }

  const ScheduleShape shape_;
  const int rank_;
  const int group_;  // micro-batches of a round
};

}  // namespace

std::string rounds_problem(const ScheduleShape& shape) {
  const int rounds = rounds_of(shape);
  if (shape.microbatches % rounds == 0) return {};
  return fmt::format("microbatches: {} micro-batches over {} ranks go in {} rounds; expected a multiple of {}, such as {}", shape.microbatches,
                     shape.ranks, rounds, rounds, shape.microbatches / shape.ranks * shape.ranks);
}

ActionList forward_list(const ScheduleShape& shape, int rank) {
  ActionList list;
  for (int chunk = 0; chunk < shape.chunks; ++chunk) {
    for (int mb = 0; mb < shape.microbatches; ++mb) list.push_back({ActionKind::kForward, chunk * shape.ranks + rank, mb});
  }
  return list;
}

ActionList looped_bfs_list(const ScheduleShape& shape, int rank) {
  ActionList list = forward_list(shape, rank);
  for (int chunk = shape.chunks - 1; chunk >= 0; --chunk) {
    for (int mb = shape.microbatches - 1; mb >= 0; --mb) list.push_back({ActionKind::kBackward, chunk * shape.ranks + rank, mb});
  }
  return list;
}

ActionList interleaved_one_f_one_b_list(const ScheduleShape& shape, int rank) {
  const InterleavedOrder order(shape, rank);
  const int total = shape.chunks * shape.microbatches;
  const int ahead = std::min((shape.chunks - 1) * order.group() + 2 * (shape.ranks - 1 - rank), total);
  ActionList list;
  for (int k = 0; k < total + ahead; ++k) {
    if (k < total) list.push_back(order.forward(k));
    if (k >= ahead) list.push_back(order.backward(ActionKind::kBackward, k - ahead));
  }
  return list;
}

ActionList zb_h1_list(const ScheduleShape& shape, int rank) {
  const InterleavedOrder order(shape, rank);
  const int total = shape.chunks * shape.microbatches;
  const int ahead = std::min((shape.chunks - 1) * order.group() + (shape.ranks - 1 - rank), total);
  ActionList list;
  int weights_done = 0;
  for (int k = 0; k < total + ahead; ++k) {
    if (k < total) list.push_back(order.forward(k));
    if (k < ahead) continue;
    list.push_back(order.backward(ActionKind::kInputGrad, k - ahead));
    if (k - ahead >= rank) list.push_back(order.backward(ActionKind::kWeightGrad, weights_done++));
  }
  while (weights_done < total) list.push_back(order.backward(ActionKind::kWeightGrad, weights_done++));
  return list;
}

}  // namespace penstock::plan
