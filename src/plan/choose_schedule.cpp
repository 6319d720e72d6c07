#include "plan/choose_schedule.h"

namespace penstock::plan {

namespace {
constexpr double kWorthTheMemory = 1.02;
}  // namespace

std::string choose_1f1b(int num_microbatches, std::span<const StageCosts> costs, double hop_latency) {
  const auto time = [&](const char* name) {
    const Schedule schedule = make_schedule({name, static_cast<int>(costs.size()), num_microbatches, 0}).value();
    return simulate(schedule, costs, hop_latency).makespan;
  };
  return time("1f1b") > kWorthTheMemory * time("eager-1f1b") ? "eager-1f1b" : "1f1b";
}

}  // namespace penstock::plan
