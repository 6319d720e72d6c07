// `penstock timeline`: a training step as it was measured, drawn as `penstock schedule --format svg` draws the plan.
#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/chrome_trace.h"
#include "base/file.h"
#include "commands.h"
#include "plan/replay.h"
#include "plan/timeline_svg.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxTraceBytes = size_t{1} << 30;

struct TimelineOptions {
  std::string run;
  int64_t step = -1;
  std::string output;
};

// Where an event belongs: `step` is among the arguments of a pipeline's action.
std::optional<int64_t> argument(const TraceEvent& event, const char* name) {
  for (const auto& [key, value] : event.arguments) {
    if (key == name && std::holds_alternative<int64_t>(value)) return std::get<int64_t>(value);
  }
  return std::nullopt;
}

struct MeasuredStep {
  std::map<int, plan::TimelineRow> rows;  // by rank
};

std::map<int64_t, MeasuredStep> measured_steps(const ChromeTrace& trace) {
  std::map<int64_t, MeasuredStep> steps;
  for (const TraceEvent& event : trace.events()) {
    const auto action = plan::parse_action(event.name);
    const auto step = argument(event, "step");
    if (!action || !step || !plan::is_compute(action->kind)) continue;
    auto& row = steps[*step].rows[event.process];
    row.name = fmt::format("rank {}", event.process);
    const double start = static_cast<double>(event.start_us) * 1e-3;
    row.bars.push_back({action->kind, action->stage, action->microbatch, start, start + static_cast<double>(event.duration_us) * 1e-3});
  }
  return steps;
}

int64_t choose(const std::map<int64_t, MeasuredStep>& steps, int64_t wanted, const std::string& file) {
  if (steps.empty()) throw error(Code::kNotFound, "{}: no step of a training run is in it", file);
  if (wanted < 0) return std::next(steps.begin(), static_cast<std::ptrdiff_t>(steps.size() / 2))->first;
  if (steps.contains(wanted)) return wanted;
  throw error(Code::kNotFound, "--step: {} was not recorded; {} holds steps {} to {}", wanted, file, steps.begin()->first, steps.rbegin()->first);
}

plan::TimelinePicture picture_of(const MeasuredStep& step, int64_t number) {
  plan::TimelinePicture picture;
  std::set<int> stages, microbatches;
  for (const auto& [rank, row] : step.rows) {
    picture.rows.push_back(row);
    for (const plan::TimelineBar& bar : row.bars) {
      stages.insert(bar.stage);
      microbatches.insert(bar.microbatch);
    }
  }
  std::set<int> first_rank;  // a rank's stages tell how many ranks a pipeline has
  for (const plan::TimelineBar& bar : picture.rows.front().bars) first_rank.insert(bar.stage);
  picture.num_ranks = std::max<int>(1, static_cast<int>(stages.size() / std::max<size_t>(first_rank.size(), 1)));
  picture.title = fmt::format("Step {} as measured, {} ranks, {} micro-batches: bubble {:.1f} %", number, picture.rows.size(), microbatches.size(),
                              100 * plan::bubble_share(picture.rows));
  picture.subtitle = "one row per rank; numbers are micro-batches; time that a rank neither forwards nor backwards is hatched";
  picture.unit = "ms";
  return picture;
}

// The k-th rank with a stage belongs to the k-th replica.
std::vector<std::vector<plan::TimelineRow>> pipelines_of(const MeasuredStep& step) {
  std::vector<std::vector<plan::TimelineRow>> pipelines;
  std::map<int, size_t> seen;  // by stage
  for (const auto& [rank, row] : step.rows) {
    const size_t replica = seen[row.bars.front().stage]++;
    if (replica >= pipelines.size()) pipelines.resize(replica + 1);
    pipelines[replica].push_back(row);
  }
  return pipelines;
}

std::string causes_of(const MeasuredStep& step) {
  plan::BubbleCauses mean;
  const auto pipelines = pipelines_of(step);
  for (const auto& rows : pipelines) {
    const plan::BubbleCauses one = plan::explain_bubble(rows);
    const double share = 1.0 / static_cast<double>(pipelines.size());
    mean.schedule += share * one.schedule;
    mean.uneven += share * one.uneven;
    mean.waiting += share * one.waiting;
  }
  return fmt::format("of it {:.1f} % from the order of actions, {:.1f} % because stages or cores were not equally fast, {:.1f} % waiting for messages",
                     100 * mean.schedule, 100 * mean.uneven, 100 * mean.waiting);
}

void timeline(const TimelineOptions& options) {
  try {
    fs::path file = options.run;
    if (fs::is_directory(file)) file /= "timeline.json";
    const ChromeTrace trace = ChromeTrace::parse(read_file(file, kMaxTraceBytes).value()).value();
    const auto steps = measured_steps(trace);
    const int64_t step = choose(steps, options.step, file.string());
    const auto picture = picture_of(steps.at(step), step);
    const fs::path output = options.output.empty() ? file.parent_path() / "timeline.svg" : fs::path(options.output);
    write_output(output, plan::timeline_svg(picture).value());
    fmt::print("{}\n  {}\nwritten to {} (steps {} to {} can be drawn with --step)\n", picture.title, causes_of(steps.at(step)), output.string(), steps.begin()->first, steps.rbegin()->first);
  } catch (const Error& e) {
    fail("timeline", e);
  }
}

}  // namespace

void add_timeline_command(CLI::App& app) {
  auto options = std::make_shared<TimelineOptions>();
  auto* command = app.add_subcommand("timeline", "Draw a measured training step: who computed what when");
  command->add_option("run", options->run, "A run folder, or its timeline.json")->required()->type_name("RUN");
  command->add_option("--step", options->step, "Which of the recorded steps; without it one from the middle")->check(CLI::NonNegativeNumber);
  command->add_option("--output", options->output, "The picture; without it timeline.svg in the run folder")->type_name("FILE");
  command->footer("Examples:\n"
                  "  penstock timeline runs/quickstart\n"
                  "  penstock timeline runs/quickstart --step 7 --output step7.svg");
  command->callback([options] { timeline(*options); });
}

}  // namespace penstock
