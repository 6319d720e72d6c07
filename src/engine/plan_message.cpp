#include "engine/plan_message.h"

#include <algorithm>
#include <span>

#include "base/error.h"

namespace penstock::engine {
namespace {

constexpr size_t kFirstNumbers = 256;
constexpr int64_t kMostNumbers = 1 << 28;

at::Tensor as_tensor(std::span<const int64_t> numbers) {
  at::Tensor tensor = at::zeros({static_cast<int64_t>(numbers.size())}, at::kLong);
  std::copy(numbers.begin(), numbers.end(), tensor.data_ptr<int64_t>());
  return tensor;
}

}  // namespace

std::vector<at::Tensor> to_pieces(const StepPlan& plan) {
  std::vector<int64_t> numbers = encode(plan);
  const size_t size = numbers.size();
  numbers.resize(std::max(size, kFirstNumbers));
  std::vector<at::Tensor> pieces = {as_tensor(std::span(numbers).first(kFirstNumbers))};
  if (size > kFirstNumbers) pieces.push_back(as_tensor(std::span(numbers).subspan(kFirstNumbers)));
  return pieces;
}

StepPlan from_pieces(const std::function<void(at::Tensor& piece, bool is_first)>& receive, int max_sequences) {
  at::Tensor first = at::empty({static_cast<int64_t>(kFirstNumbers)}, at::kLong);
  receive(first, true);
  std::vector<int64_t> numbers(first.data_ptr<int64_t>(), first.data_ptr<int64_t>() + kFirstNumbers);
  const int64_t size = numbers[0];
  if (size < 1 || size > kMostNumbers) throw error(Code::kInternal, "a step plan of {} numbers", size);
  if (static_cast<size_t>(size) > kFirstNumbers) {
    at::Tensor rest = at::empty({size - static_cast<int64_t>(kFirstNumbers)}, at::kLong);
    receive(rest, false);
    numbers.insert(numbers.end(), rest.data_ptr<int64_t>(), rest.data_ptr<int64_t>() + rest.numel());
  }
  return decode(std::span(numbers).first(static_cast<size_t>(size)), max_sequences);
}

}  // namespace penstock::engine
