#include "train/step_metrics.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/svg_chart.h"

namespace penstock::train {
namespace {

double seconds_between(int64_t start_us, int64_t end_us) { return static_cast<double>(end_us - start_us) * 1e-6; }

}  // namespace

void StepSums::add_records(const std::vector<pipeline::ActionRecord>& actions, const std::vector<ReductionRecord>& reductions, bool first_rank,
                           int pipe_ranks) {
  int64_t last_backward = 0, last_reduction = 0;
  for (const auto& r : actions) {
    if (plan::is_compute(r.action.kind)) busy_seconds += seconds_between(r.start_us, r.end_us);
    if (plan::makes_weight_grad(r.action.kind)) last_backward = r.end_us;
  }
  if (first_rank && !actions.empty()) span_seconds += pipe_ranks * seconds_between(actions.front().start_us, actions.back().end_us);
  for (const auto& r : reductions) last_reduction = std::max(last_reduction, r.end_us);
  exposed_seconds += std::max(0.0, seconds_between(last_backward, last_reduction));
}

void StepSums::all_reduce(comm::Communicator& world, Deadline deadline) {
  double* const fields[] = {&loss_sum, &gradient_square, &elapsed_seconds, &busy_seconds, &span_seconds, &exposed_seconds, &bytes, &stop};
  std::vector<double*> all(std::begin(fields), std::end(fields));
  for (auto* by_rank : {&compute_seconds, &peak_bytes}) {
    for (double& value : *by_rank) all.push_back(&value);
  }
  at::Tensor packed = at::empty({static_cast<int64_t>(all.size())}, at::kDouble);
  double* values = packed.data_ptr<double>();
  for (size_t i = 0; i < all.size(); ++i) values[i] = *all[i];
  world.all_reduce(packed, comm::Reduce::kSum)->wait(deadline);
  for (size_t i = 0; i < all.size(); ++i) *all[i] = values[i];
}

void StepSums::add_own(int rank, int world_size) {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  compute_seconds.assign(static_cast<size_t>(world_size), 0);
  peak_bytes.assign(static_cast<size_t>(world_size), 0);
  compute_seconds[static_cast<size_t>(rank)] = busy_seconds;
  peak_bytes[static_cast<size_t>(rank)] = 1024.0 * static_cast<double>(usage.ru_maxrss);
}

std::vector<std::pair<std::string_view, double>> StepReport::scalars() const {
  std::vector<std::pair<std::string_view, double>> values = {{"elapsed_seconds", elapsed_seconds}, {"loss", loss}};
  if (validated) values.emplace_back("validation_loss", validation_loss);
  values.emplace_back("learning_rate", learning_rate);
  values.emplace_back("gradient_norm", gradient_norm);
  values.emplace_back("tokens_per_second", tokens_per_second);
  values.emplace_back("bubble_share", bubble_share);
  values.emplace_back("exposed_communication_share", exposed_share);
  if (skipped_steps > 0) values.emplace_back("skipped_steps", static_cast<double>(skipped_steps));
  if (loss_scale > 0) values.emplace_back("loss_scale", loss_scale);
  if (mfu > 0) values.emplace_back("mfu", mfu);
  if (peak_bytes > 0) values.emplace_back("peak_memory_bytes", peak_bytes);
  if (!stragglers.empty()) {
    values.emplace_back("straggler_rank", stragglers.front().rank);
    values.emplace_back("straggler_factor", stragglers.front().factor);
  }
  return values;
}

std::string StepReport::to_json_line() const {
  nlohmann::ordered_json line;
  line["step"] = step;
  for (const auto& [name, value] : scalars()) line[std::string(name)] = value;
  return line.dump() + "\n";
}

void StepAverages::add(const StepSums& sums, double seconds) {
  ++steps_;
  if (std::isfinite(sums.loss_sum)) {
    ++losses_;
    loss_ += sums.mean_loss();
  }
  seconds_ += seconds;
  busy_ += sums.busy_seconds;
  span_ += sums.span_seconds;
  exposed_ += sums.exposed_seconds / num_ranks_;
  for (const double bytes : sums.peak_bytes) peak_bytes_ = std::max(peak_bytes_, bytes);
}

void StepAverages::report_into(StepReport& report) {
  if (losses_ > 0) report.loss = loss_ / losses_;  // of skipped steps only: that of the report before
  report.tokens_per_second = static_cast<double>(tokens_per_step_) * steps_ / seconds_;
  report.bubble_share = span_ > 0 ? std::max(0.0, 1 - busy_ / span_) : 0;
  report.exposed_share = exposed_ / seconds_;
  report.peak_bytes = peak_bytes_;
  steps_ = losses_ = 0;
  loss_ = seconds_ = busy_ = span_ = exposed_ = 0;
}

std::string loss_chart(const std::vector<StepReport>& reports) {
  ChartSeries train{"training", {}, 5, false}, validation{"validation", {}, 0, true};
  for (const StepReport& r : reports) {
    train.points.push_back({static_cast<double>(r.step), r.loss});
    if (r.validated) validation.points.push_back({static_cast<double>(r.step), r.validation_loss});
  }
  return line_chart_svg({"Loss", "", "step", "nats: per token (training), per byte (validation)"}, {train, validation});
}

}  // namespace penstock::train
