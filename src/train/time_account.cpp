#include "train/time_account.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

namespace penstock::train {
namespace {

constexpr std::array<std::string_view, kNumSpent> kNames = {  // by Spent
    "compute", "waiting for stages", "exposed reduction", "waiting for ranks", "optimizer", "data", "checkpoint copy", "validation", "model export"};

double seconds_between(int64_t start_us, int64_t end_us) { return static_cast<double>(end_us - start_us) * 1e-6; }

}  // namespace

void TimeAccount::add_gradients(const std::vector<pipeline::ActionRecord>& actions, const std::vector<ReductionRecord>& reductions, double seconds) {
  double compute = 0, messages = 0;
  int64_t last_backward = 0, last_reduction = 0;
  for (const auto& r : actions) {
    (plan::is_compute(r.action.kind) ? compute : messages) += seconds_between(r.start_us, r.end_us);
    if (plan::makes_weight_grad(r.action.kind)) last_backward = r.end_us;
  }
  for (const auto& r : reductions) last_reduction = std::max(last_reduction, r.end_us);
  // Sends after the last backward run while reductions do: no second counts twice.
  const double rest = std::max(0.0, seconds - compute - messages);
  add(Spent::kCompute, compute);
  add(Spent::kStages, messages);
  add(Spent::kReduction, std::clamp(seconds_between(last_backward, last_reduction), 0.0, rest));
}

std::vector<std::pair<std::string_view, double>> TimeAccount::mean(comm::Communicator& world, double wall_seconds, Deadline deadline) const {
  at::Tensor sums = at::empty({static_cast<int64_t>(kNumSpent) + 1}, at::kDouble);
  double* values = sums.data_ptr<double>();
  std::copy(seconds_.begin(), seconds_.end(), values);
  values[kNumSpent] = wall_seconds;
  world.all_reduce(sums, comm::Reduce::kSum)->wait(deadline);
  std::vector<std::pair<std::string_view, double>> parts;
  double other = values[kNumSpent] / world.size();
  for (size_t i = 0; i < kNumSpent; ++i) {
    parts.emplace_back(kNames[i], values[i] / world.size());
    other -= parts.back().second;
  }
  parts.emplace_back("other", std::max(0.0, other));
  return parts;
}

std::string time_table(const std::vector<std::pair<std::string_view, double>>& parts) {
  double whole = 0;
  for (const auto& [name, seconds] : parts) whole += seconds;
  std::string text;
  const auto line = [&](std::string_view name, double seconds) {
    text += fmt::format("    {:<20} {:>10.1f} s {:>6.1f} %\n", name, seconds, whole > 0 ? 100 * seconds / whole : 0);
  };
  for (const auto& [name, seconds] : parts) {
    if (seconds > 0) line(name, seconds);
  }
  line("wall time", whole);
  return text;
}

}  // namespace penstock::train
