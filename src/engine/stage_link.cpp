#include "engine/stage_link.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::engine {
namespace {

enum Tag : int { kPlanTag = 21, kHiddenTag = 22, kSamplesTag = 23 };
constexpr size_t kMaxPendingSends = 32;

// A receiver does not know how long a plan is: so many numbers come first, and the first of them says whether others follow.
constexpr size_t kFirstNumbers = 256;
constexpr int64_t kMostNumbers = 1 << 28;

at::Tensor as_tensor(std::span<const int64_t> numbers) {
  at::Tensor tensor = at::zeros({static_cast<int64_t>(numbers.size())}, at::kLong);
  std::copy(numbers.begin(), numbers.end(), tensor.data_ptr<int64_t>());
  return tensor;
}

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
  std::vector<int64_t> numbers = encode(plan);
  const size_t size = numbers.size();
  numbers.resize(std::max(size, kFirstNumbers));
  post(as_tensor(std::span(numbers).first(kFirstNumbers)), stages_.rank() + 1, kPlanTag);
  if (size > kFirstNumbers) post(as_tensor(std::span(numbers).subspan(kFirstNumbers)), stages_.rank() + 1, kPlanTag);
}

StepPlan StageLink::recv_plan(Deadline deadline) {
  at::Tensor first = at::empty({static_cast<int64_t>(kFirstNumbers)}, at::kLong);
  stages_.recv(first, stages_.rank() - 1, kPlanTag)->wait(deadline);
  std::vector<int64_t> numbers(first.data_ptr<int64_t>(), first.data_ptr<int64_t>() + kFirstNumbers);
  const int64_t size = numbers[0];
  if (size < 1 || size > kMostNumbers) throw error(Code::kInternal, "a step plan of {} numbers", size);
  if (static_cast<size_t>(size) > kFirstNumbers) {
    at::Tensor rest = at::empty({size - static_cast<int64_t>(kFirstNumbers)}, at::kLong);
    stages_.recv(rest, stages_.rank() - 1, kPlanTag)->wait(Deadline::after(timeout_));
    numbers.insert(numbers.end(), rest.data_ptr<int64_t>(), rest.data_ptr<int64_t>() + rest.numel());
  }
  return decode(std::span(numbers).first(static_cast<size_t>(size)), max_sequences_);
}

void StageLink::send_hidden(const at::Tensor& hidden) { post(hidden.contiguous(), stages_.rank() + 1, kHiddenTag); }

at::Tensor StageLink::recv_hidden(int rows, int64_t width) {
  at::Tensor hidden = at::empty({rows, width}, at::kFloat);
  stages_.recv(hidden, stages_.rank() - 1, kHiddenTag)->wait(Deadline::after(timeout_));
  return hidden;
}

void StageLink::send_samples(const StepPlan& plan, const std::vector<SampledToken>& tokens) {
  post(at::tensor(encode_samples(plan, tokens), at::kInt), 0, kSamplesTag);
}

void StageLink::expect_samples(const StepPlan& plan) {
  at::Tensor numbers = at::empty({static_cast<int64_t>(encoded_samples_size(plan))}, at::kInt);
  comm::WorkPtr work = stages_.recv(numbers, stages_.size() - 1, kSamplesTag);
  expected_samples_.push_back({std::move(numbers), std::move(work)});
}

std::vector<SampledToken> StageLink::wait_samples(const StepPlan& plan) {
  Pending pending = std::move(expected_samples_.front());
  expected_samples_.pop_front();
  pending.work->wait(Deadline::after(timeout_));
  return decode_samples(plan, {pending.tensor.data_ptr<int32_t>(), static_cast<size_t>(pending.tensor.numel())});
}

void StageLink::flush() {
  for (Pending& send : sends_) send.work->wait(Deadline::after(timeout_));
  sends_.clear();
}

}  // namespace penstock::engine
