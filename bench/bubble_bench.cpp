// Bubble share of real layers beside the formula, and why it differs: the same number of decoder blocks on each of 2 ranks with a core each.
#include <CLI/CLI.hpp>

#include <algorithm>

#include "base/error.h"
#include "cluster/process_group.h"
#include "comm/run_job.h"
#include "model/families.h"
#include "pipeline/executor.h"
#include "plan/replay.h"
#include "plan/schedule_check.h"
#include "plan/simulation.h"
#include "tensor/heap.h"

namespace penstock {
namespace {

// Blocks without embedding and head, so that stages are equal.
constexpr int kBlocks = 16;
constexpr int kMostActions = 4096;

std::vector<model::LayerSpec> decoder_blocks(int stages) {
  model::TransformerConfig config;
  config.vocab_size = 1;
  config.hidden_size = 256;
  config.num_layers = kBlocks;
  config.num_heads = config.num_kv_heads = 8;
  config.head_size = 32;
  config.intermediate_size = 704;
  config.max_position_embeddings = 128;
  std::vector<model::LayerSpec> all = model::transformer_layers(config);
  PENSTOCK_CHECK(kBlocks % stages == 0, "{} blocks on {} stages", kBlocks, stages);
  return {all.begin() + 1, all.end() - 1};
}

// Every rank's records on every rank.
std::vector<plan::TimelineRow> gather_rows(comm::Communicator& pipe, const std::vector<pipeline::ActionRecord>& records) {
  at::Tensor all = at::zeros({pipe.size(), kMostActions, 5}, at::kLong);
  auto values = all.accessor<int64_t, 3>();
  int64_t n = 0;
  for (const auto& r : records) {
    if (!plan::is_compute(r.action.kind)) continue;
    PENSTOCK_CHECK(n < kMostActions, "more than {} actions", kMostActions);
    auto row = values[pipe.rank()][n++];
    row[0] = 1 + static_cast<int64_t>(r.action.kind);
    row[1] = r.action.stage;
    row[2] = r.action.microbatch;
    row[3] = r.start_us;
    row[4] = r.end_us;
  }
  pipe.all_reduce(all, comm::Reduce::kSum)->wait(Deadline::after(seconds(60)));
  std::vector<plan::TimelineRow> rows(static_cast<size_t>(pipe.size()));
  for (int rank = 0; rank < pipe.size(); ++rank) {
    for (int i = 0; i < kMostActions && values[rank][i][0] != 0; ++i) {
      const auto row = values[rank][i];
      rows[static_cast<size_t>(rank)].bars.push_back({static_cast<plan::ActionKind>(row[0] - 1), static_cast<int>(row[1]), static_cast<int>(row[2]),
                                                      static_cast<double>(row[3]), static_cast<double>(row[4])});
    }
  }
  return rows;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// Mean times of one stage, for the formula.
plan::StageCosts costs_of(const std::vector<plan::TimelineRow>& rows) {
  const auto mean = [&](plan::ActionKind kind) {
    double sum = 0;
    int count = 0;
    for (const plan::TimelineRow& row : rows) {
      for (const plan::TimelineBar& bar : row.bars) {
        if (bar.kind != kind) continue;
        sum += bar.end - bar.start;
        ++count;
      }
    }
    return count > 0 ? sum / count : 0;
  };
  return {mean(plan::ActionKind::kForward), mean(plan::ActionKind::kBackward), mean(plan::ActionKind::kInputGrad), mean(plan::ActionKind::kWeightGrad)};
}

void measure(comm::Communicator& pipe, const std::string& name, int microbatches, int steps) {
  const plan::Schedule schedule = plan::proven(plan::make_schedule({name, pipe.size(), microbatches, 0}).value());
  const auto specs = decoder_blocks(schedule.num_stages);
  std::vector<int> boundaries;
  for (int stage = 0; stage <= schedule.num_stages; ++stage) boundaries.push_back(stage * kBlocks / schedule.num_stages);
  std::vector<std::unique_ptr<pipeline::Stage>> stages;
  std::vector<pipeline::Stage*> mine;
  for (const int index : schedule.stages_of(pipe.rank())) {
    stages.push_back(std::make_unique<pipeline::Stage>(specs, boundaries, index));
    for (model::Parameter& p : stages.back()->parameters()) model::initialize(p, 1);
    mine.push_back(stages.back().get());
  }
  at::set_num_threads(1);
  tensor::keep_freed_memory();
  pipeline::Executor executor(pipe, mine, seconds(60));
  std::vector<pipeline::Microbatch> batch;
  for (int i = 0; i < microbatches; ++i) batch.push_back({{at::randn({8, 128, 256}).requires_grad_(true)}, {}});
  pipeline::StepRequest request;
  request.schedule = &schedule;
  request.microbatches = batch;
  request.loss = [](const model::Tensors& outputs, const model::Tensors&) { return outputs[0].sum(); };
  std::vector<double> measured, formulas, uneven, waiting;
  for (int step = 0; step < steps + 2; ++step) {
    pipe.barrier()->wait(Deadline::after(seconds(60)));
    const auto rows = gather_rows(pipe, executor.run(request).records);
    const plan::BubbleCauses causes = plan::explain_bubble(rows);
    if (step < 2) continue;
    measured.push_back(causes.measured);
    formulas.push_back(plan::bubble_formula(schedule, costs_of(rows)).value());
    uneven.push_back(causes.uneven);
    waiting.push_back(causes.waiting);
  }
  if (pipe.rank() != 0) return;
  const double formula = median(formulas);
  fmt::print("{:<18} {:>3} {:>9.2f}% {:>9.2f}% {:>7.3f} {:>8.2f}% {:>9.2f}%\n", name, microbatches, 100 * median(measured), 100 * formula, median(measured) / formula,
             100 * median(uneven), 100 * median(waiting));
  std::fflush(stdout);
}

void compare(const char* program, int steps) {
  fmt::print("2 ranks with a core each, {} blocks, medians over {} steps\n{:<18} {:>3} {:>10} {:>10} {:>7} {:>9} {:>10}\n", kBlocks, steps, "schedule", "m", "measured",
             "formula", "ratio", "uneven", "waiting");
  std::fflush(stdout);
  for (const char* name : {"gpipe", "1f1b", "interleaved-1f1b", "zb-h1"}) {
    for (const int m : {4, 8, 16}) {
      cluster::RankGroupOptions group;
      group.num_ranks = 2;
      group.cores_per_rank = 1;
      group.process.argv = {program, "--schedule", name, "--microbatches", std::to_string(m), "--steps", std::to_string(steps)};
      group.process.env = {"OMP_NUM_THREADS=1"};
      const auto processes = cluster::RankGroup::spawn(group).value();
      while (!processes->all_reported()) (void)processes->wait_any(Deadline::after(seconds(60)));
    }
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  CLI::App app{"Bubble share of real layers on 2 ranks with a core each", "bubble_bench"};
  int steps = 9, microbatches = 8;
  std::string schedule;
  app.add_option("--steps", steps, "Measured, after two of warm-up")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--microbatches", microbatches, "With --schedule");
  app.add_option("--schedule", schedule, "Only this one, as a rank of a job");
  try {
    app.parse(argc, argv);
    if (schedule.empty()) {
      penstock::compare(argv[0], steps);
    } else {
      penstock::comm::run_job(2, [&](penstock::comm::Communicator& world) { penstock::measure(world, schedule, microbatches, steps); });
    }
    return 0;
  } catch (const CLI::ParseError& wrong) {
    return app.exit(wrong);
  } catch (const std::exception& failed) {
    fmt::print(stderr, "bubble_bench: {}\n", failed.what());
    return 1;
  }
}
