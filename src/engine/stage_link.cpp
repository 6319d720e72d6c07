#include "engine/stage_link.h"

namespace penstock::engine {
namespace {

enum Tag : int { kPlanTag = 21, kHiddenTag = 22, kIdsTag = 23 };
constexpr size_t kMaxPendingSends = 32;

at::Tensor as_tensor(const std::vector<int64_t>& numbers) { return at::tensor(numbers, at::kLong); }

}  // namespace

void StageLink::post(at::Tensor tensor, int to, int tag) {
  comm::WorkPtr work = stages_.send(tensor, to, tag);
  sends_.push_back({std::move(tensor), std::move(work)});
  while (sends_.size() > kMaxPendingSends) {
    sends_.front().work->wait(Deadline::after(timeout_));
    sends_.pop_front();
  }
}

void StageLink::send_plan(const StepPlan& plan) { post(as_tensor(encode(plan, max_sequences_)), stages_.rank() + 1, kPlanTag); }

StepPlan StageLink::recv_plan(Deadline deadline) {
  at::Tensor numbers = at::empty({static_cast<int64_t>(encoded_size(max_sequences_))}, at::kLong);
  stages_.recv(numbers, stages_.rank() - 1, kPlanTag)->wait(deadline);
  return decode({numbers.data_ptr<int64_t>(), static_cast<size_t>(numbers.numel())}, max_sequences_);
}

void StageLink::send_hidden(const at::Tensor& hidden) { post(hidden.contiguous(), stages_.rank() + 1, kHiddenTag); }

at::Tensor StageLink::recv_hidden(int rows, int64_t width) {
  at::Tensor hidden = at::empty({rows, width}, at::kFloat);
  stages_.recv(hidden, stages_.rank() - 1, kHiddenTag)->wait(Deadline::after(timeout_));
  return hidden;
}

void StageLink::send_ids(const std::vector<int32_t>& ids) { post(at::tensor(ids, at::kInt), 0, kIdsTag); }

void StageLink::expect_ids(int count) {
  at::Tensor ids = at::empty({count}, at::kInt);
  comm::WorkPtr work = stages_.recv(ids, stages_.size() - 1, kIdsTag);
  expected_ids_.push_back({std::move(ids), std::move(work)});
}

std::vector<int32_t> StageLink::wait_ids() {
  Pending pending = std::move(expected_ids_.front());
  expected_ids_.pop_front();
  pending.work->wait(Deadline::after(timeout_));
  const auto* ids = pending.tensor.data_ptr<int32_t>();
  return {ids, ids + pending.tensor.numel()};
}

void StageLink::flush() {
  for (Pending& send : sends_) send.work->wait(Deadline::after(timeout_));
  sends_.clear();
}

}  // namespace penstock::engine
