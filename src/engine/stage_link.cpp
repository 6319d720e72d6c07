#include "engine/stage_link.h"

#include <algorithm>

#include "engine/plan_message.h"

namespace penstock::engine {
namespace {

enum Tag : int { kPlanTag = 21, kHiddenTag = 22, kSamplesTag = 23 };
constexpr size_t kMaxPendingSends = 32;

// A step without samples is answered by a number that says nothing.
size_t message_size(const StepPlan& plan) { return std::max<size_t>(1, encoded_samples_size(plan)); }

}  // namespace

void StageLink::post(at::Tensor tensor, int to, int tag) {
  comm::WorkPtr work = stages_.send(tensor, to, tag);
  sends_.push_back({std::move(tensor), std::move(work)});
  while (sends_.size() > kMaxPendingSends) {
    sends_.front().work->wait(Deadline::after(timeout_));
    sends_.pop_front();
  }
}

void StageLink::send_plan(const StepPlan& plan) {
  for (at::Tensor& piece : to_pieces(plan)) post(std::move(piece), stages_.rank() + 1, kPlanTag);
}

StepPlan StageLink::recv_plan(Deadline deadline) {
  const auto receive = [&](at::Tensor& piece, bool is_first) {
    stages_.recv(piece, stages_.rank() - 1, kPlanTag)->wait(is_first ? deadline : Deadline::after(timeout_));
  };
  return from_pieces(receive, max_sequences_);
}

void StageLink::send_hidden(const at::Tensor& hidden) { post(hidden.cpu().contiguous(), stages_.rank() + 1, kHiddenTag); }

at::Tensor StageLink::recv_hidden(int rows, int64_t width) {
  at::Tensor hidden = at::empty({rows, width}, at::kFloat);
  stages_.recv(hidden, stages_.rank() - 1, kHiddenTag)->wait(Deadline::after(timeout_));
  return hidden;
}

void StageLink::send_samples(const StepPlan& plan, const std::vector<SampledToken>& tokens) {
  std::vector<int32_t> numbers = encode_samples(plan, tokens);
  numbers.resize(message_size(plan));
  post(at::tensor(numbers, at::kInt), 0, kSamplesTag);
}

void StageLink::expect_samples(const StepPlan& plan) {
  at::Tensor numbers = at::empty({static_cast<int64_t>(message_size(plan))}, at::kInt);
  comm::WorkPtr work = stages_.recv(numbers, stages_.size() - 1, kSamplesTag);
  expected_samples_.push_back({std::move(numbers), std::move(work)});
}

std::vector<SampledToken> StageLink::wait_samples(const StepPlan& plan) {
  Pending pending = std::move(expected_samples_.front());
  expected_samples_.pop_front();
  pending.work->wait(Deadline::after(timeout_));
  return decode_samples(plan, {pending.tensor.data_ptr<int32_t>(), encoded_samples_size(plan)});
}

void StageLink::flush() {
  for (Pending& send : sends_) send.work->wait(Deadline::after(timeout_));
  sends_.clear();
}

}  // namespace penstock::engine
