// `penstock schedule`: a pipeline schedule made visible, before anything runs.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/chrome_trace.h"
#include "base/file.h"
#include "commands.h"
#include "plan/lowering.h"
#include "plan/schedule_check.h"
#include "plan/schedule_csv.h"
#include "plan/simulation.h"
#include "plan/timeline_svg.h"

namespace penstock {
namespace {

constexpr double kTraceUnit = 1000;  // microseconds for one unit of time

struct ScheduleOptions {
  plan::ScheduleRequest request;
  std::string csv;
  std::string format = "text";
  std::string output;
  bool communication = false;
  bool list = false;
  plan::StageCosts costs;
  double hop_latency = 0;
};

plan::Schedule load(const ScheduleOptions& options) {
  if (options.csv.empty()) return plan::make_schedule(options.request).value();
  return plan::parse_csv(read_file(options.csv, plan::kMaxCsvBytes).value(), options.csv).value();
}

// Chunks of a rank are equal parts of its work, so that schedules with more stages stay comparable.
plan::Simulation simulate(const plan::Schedule& schedule, const ScheduleOptions& options) {
  const double part = static_cast<double>(schedule.num_ranks) / schedule.num_stages;
  plan::StageCosts costs = options.costs;
  for (double* cost : {&costs.forward, &costs.backward, &costs.input_grad, &costs.weight_grad}) *cost *= part;
  return plan::simulate(schedule, std::vector<plan::StageCosts>(static_cast<size_t>(schedule.num_stages), costs), options.hop_latency);
}

std::string summary(const plan::Schedule& schedule, const plan::Simulation& simulation, const ScheduleOptions& options) {
  std::string text = fmt::format("\n{}: {} ranks, {} stages, {} micro-batches; forward {:g}, input gradient {:g}, weight gradient {:g}, hop {:g}\n", schedule.name,
                                 schedule.num_ranks, schedule.num_stages, schedule.num_microbatches, options.costs.forward, options.costs.input_grad,
                                 options.costs.weight_grad, options.hop_latency);
  text += fmt::format("  makespan      {:g}\n  bubble share  {:.2f} %", simulation.makespan, 100 * simulation.bubble_share);
  if (const auto formula = plan::bubble_formula(schedule, options.costs)) text += fmt::format("   (formula, without hops: {:.2f} %)", 100 * *formula);
  const int chunks = schedule.num_stages / schedule.num_ranks;
  text += chunks > 1 ? fmt::format("\n  peak live activations, by rank, each of one of the rank's {} stages ", chunks) : "\n  peak live activations, by rank ";
  for (const plan::RankTimeline& rank : simulation.ranks) text += fmt::format(" {}", rank.peak_live_activations);
  text += "\n  of which kept for weight gradients, by rank ";
  for (const plan::RankTimeline& rank : simulation.ranks) text += fmt::format(" {}", rank.peak_kept_for_weights);
  return text + "\n";
}

std::string trace(const plan::Simulation& simulation) {
  ChromeTrace trace;
  for (size_t rank = 0; rank < simulation.ranks.size(); ++rank) {
    const auto process = static_cast<int>(rank);
    trace.name_process(process, fmt::format("rank {}", rank));
    for (const plan::TimedAction& timed : simulation.ranks[rank].actions) {
      trace.add({plan::to_string(timed.action), std::string(plan::to_string(timed.action.kind)), process, plan::is_compute(timed.action.kind) ? 0 : 1,
                 static_cast<int64_t>(timed.start * kTraceUnit), static_cast<int64_t>((timed.end - timed.start) * kTraceUnit),
                 {{"stage", int64_t{timed.action.stage}}, {"microbatch", int64_t{timed.action.microbatch}}}});
    }
  }
  return trace.to_json();
}

std::string render(const ScheduleOptions& options) {
  const plan::Schedule schedule = load(options);
  const plan::Schedule lowered = plan::proven(schedule);
  const plan::Schedule& shown = options.communication ? lowered : schedule;
  if (options.format == "csv") return plan::to_csv(shown);
  const plan::Simulation simulation = simulate(shown, options);
  if (options.format == "text") return plan::to_text(shown) + summary(schedule, simulation, options);
  if (options.format == "trace") return trace(simulation);
  return plan::timeline_svg(plan::picture_of(schedule, simulation)).value();
}

std::string list() {
  std::string text;
  for (const plan::KnownSchedule& known : plan::known_schedules()) {
    const std::string chunks = known.any_chunks ? fmt::format("chunks: any ({})", known.chunks) : fmt::format("chunks: {}", known.chunks);
    text += fmt::format("{:<18} {:<18} {}\n", known.name, chunks, known.summary);
  }
  return text;
}

void check_costs(const ScheduleOptions& options) {
  for (const double value : {options.costs.forward, options.costs.input_grad, options.costs.weight_grad, options.hop_latency}) {
    if (!(value >= 0 && value <= 1e9)) throw error(Code::kInvalidArgument, "times of actions and hops: expected 0 to 1e9, found {}", value);
  }
}

void schedule(const ScheduleOptions& options) {
  try {
    check_costs(options);
    if (options.list) return fmt::print("{}", list());
    if (options.csv.empty() == options.request.name.empty()) throw error(Code::kInvalidArgument, "expected one of --name and --csv (--list shows the names)");
    const std::string text = render(options);
    if (options.output.empty()) return fmt::print("{}", text);
    write_output(options.output, text);
  } catch (const Error& e) {
    fail("schedule", e);
  }
}

}  // namespace

void add_schedule_command(CLI::App& app) {
  auto options = std::make_shared<ScheduleOptions>();
  options->request.num_ranks = 4;
  options->request.num_microbatches = 8;
  auto* command = app.add_subcommand("schedule", "Show a pipeline schedule: its order, bubble and memory");
  command->add_option("--name", options->request.name, "The schedule, one of --list");
  auto* csv = command->add_option("--csv", options->csv, "A schedule of your own, in the notation of --format csv: it is proven before it is shown")->type_name("FILE");
  command->add_flag("--list", options->list, "Name the schedules");
  csv->excludes(command->add_option("--ranks", options->request.num_ranks, "Pipeline ranks, p")->capture_default_str());
  csv->excludes(command->add_option("--microbatches", options->request.num_microbatches, "Micro-batches of a step, m")->capture_default_str());
  csv->excludes(command->add_option("--chunks", options->request.chunks, "Stages per rank, v; without it as many as the schedule has by itself")->check(CLI::Range(1, 4096)));
  command->add_option("--format", options->format, "text, csv (that of torch.distributed.pipelining), svg (a picture) or trace (opens in Perfetto)")
      ->check(CLI::IsMember({"text", "csv", "svg", "trace"}))
      ->capture_default_str();
  command->add_flag("--communication", options->communication, "With its sends and receives");
  command->add_option("--output", options->output, "Write to this file instead of the terminal")->type_name("FILE");
  command->add_option("--forward", options->costs.forward, "Time of one rank's forward")->capture_default_str();
  command->add_option("--input-grad", options->costs.input_grad, "Time of its input gradient")->capture_default_str();
  command->add_option("--weight-grad", options->costs.weight_grad, "Time of its weight gradient")->capture_default_str();
  command->add_option("--hop-latency", options->hop_latency, "Time until a tensor is on the next rank")->capture_default_str();
  command->footer("In csv each rank is a line of STAGE ACTION MICROBATCH: F forward, B backward, I input gradient, W weight gradient; an empty field is an idle slot.\n"
                  "Examples:\n"
                  "  penstock schedule --name 1f1b --ranks 4 --microbatches 8\n"
                  "  penstock schedule --name zb-v --ranks 4 --microbatches 12 --format svg --output zb-v.svg\n"
                  "  penstock schedule --name interleaved-1f1b --ranks 4 --microbatches 8 --chunks 2 --format csv --communication\n"
                  "  penstock schedule --csv mine.csv --hop-latency 0.25");
  command->callback([options] {
    options->costs.backward = options->costs.input_grad + options->costs.weight_grad;
    schedule(*options);
  });
}

}  // namespace penstock
