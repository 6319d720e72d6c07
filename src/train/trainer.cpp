#include "train/trainer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "base/progress_line.h"
#include "base/tensorboard.h"
#include "kernels/peak_flops.h"
#include "model/families.h"
#include "train/model_export.h"
#include "plan/simulation.h"
#include "tensor/device.h"
#include "train/checkpoint_writer.h"
#include "train/run_folder.h"
#include "train/train_run.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

constexpr double kReportInterval = 0.5;     // seconds between reports, at least
constexpr double kPeakMeasurement = 0.25;   // seconds
constexpr milliseconds kLookAgain{20};      // for a checkpoint that is not to be seen yet

// What an earlier run has reported: its lines, and of them what the chart shows.
struct EarlierReports {
  std::string lines;
  std::vector<StepReport> reports;
};

// Of steps up to this one. A killed run may have left half a line.
EarlierReports reports_until(const fs::path& file, int64_t step) {
  std::ifstream lines(file);
  EarlierReports kept;
  for (std::string line; step > 0 && std::getline(lines, line);) {
    const auto found = nlohmann::json::parse(line, nullptr, false);
    const auto number = [&](const char* key) { return found.contains(key) && found[key].is_number(); };
    if (!found.is_object() || !number("step") || !found["step"].is_number_integer() || found["step"] > step) continue;
    kept.lines += line + "\n";
    if (!number("loss")) continue;
    StepReport& report = kept.reports.emplace_back();
    report.step = found["step"];
    report.loss = found["loss"];
    report.validated = number("validation_loss");
    if (report.validated) report.validation_loss = found["validation_loss"];
  }
  return kept;
}

// What rank 0 shows and writes down while the run goes on; on other ranks it does nothing.
class Reporter {
 public:
  // `step`: the one that the run goes on from; what was written of later ones is forgotten.
  Reporter(const config::TrainConfig& config, bool active, int64_t step, bool quiet) : config_(config), active_(active) {
    if (!active) return;
    const fs::path file = fs::path(config.output) / "metrics.jsonl";
    EarlierReports earlier = reports_until(file, step);
    write_file_atomic(file, earlier.lines);
    reports_ = std::move(earlier.reports);
    metrics_.open(file, std::ios::app);
    tensorboard_.emplace(fs::path(config.output) / "tensorboard");
    if (!metrics_) throw error(Code::kDataLoss, "cannot write {}/metrics.jsonl", config.output);
    if (!quiet) line_.emplace(std::cerr, ProgressLine::for_stderr());
  }

  void report(const StepReport& report, double progress) {
    if (!active_) return;
    metrics_ << report.to_json_line() << std::flush;
    if (!metrics_) throw error(Code::kDataLoss, "cannot write {}/metrics.jsonl; is the disk full?", config_.output);
    tensorboard_->add(report.step, report.scalars());
    reports_.push_back(report);
    if (line_) line_->update(progress, text(report, progress));
  }
  void note(const std::string& text) {
    if (line_) line_->print_above(text);
  }
  void finish() {
    if (!active_) return;
    if (line_) line_->finish();
    write_file_atomic(fs::path(config_.output) / "loss.svg", loss_chart(reports_));
  }

 private:
  static std::string text(const StepReport& r, double progress) {
    const double left = progress > 0.001 ? r.elapsed_seconds / progress * (1 - progress) : 0;
    const std::string validation = r.validation_loss >= 0 ? fmt::format("  val {:.3f}", r.validation_loss) : "";
    return fmt::format("step {}  loss {:.3f}{}  {:.1f}k tok/s  bubble {:.0f}%  exposed {:.1f}%  {}:{:02d} left", r.step, r.loss, validation,
                       r.tokens_per_second / 1000, 100 * r.bubble_share, 100 * r.exposed_share, static_cast<int>(left) / 60,
                       static_cast<int>(left) % 60);
  }

  const config::TrainConfig& config_;
  const bool active_;
  std::ofstream metrics_;
  std::optional<TensorboardWriter> tensorboard_;
  std::vector<StepReport> reports_;
  std::optional<ProgressLine> line_;
};

// Forward and backward operations per token: 6 per weight, and 6·L·C·T for attention (as llm.c counts).
double operations_per_token(const model::TransformerConfig& m, int64_t sequence_length) {
  return 6.0 * static_cast<double>(model::num_parameters(m)) + 6.0 * static_cast<double>(m.num_layers * m.num_heads * m.head_size * sequence_length);
}

// All ranks measure at the same time, so that ranks which share cores share the peak too.
double measure_peak(kernels::Compute compute, at::Device device, comm::Communicator& world, Deadline deadline) {
  world.barrier()->wait(deadline);
  at::Tensor peak = at::empty({1}, at::kDouble);
  *peak.data_ptr<double>() = kernels::measure_peak_flops(compute, kPeakMeasurement, device);
  world.all_reduce(peak, comm::Reduce::kSum)->wait(deadline);
  return *peak.data_ptr<double>();
}

double planned_bubble(const plan::Schedule& schedule) {
  return plan::simulate(schedule, std::vector<plan::StageCosts>(static_cast<size_t>(schedule.num_stages)), 0).bubble_share;
}

const char* name_of(kernels::Compute compute) {
  return compute == kernels::Compute::kBf16 ? "bf16" : compute == kernels::Compute::kFp16 ? "fp16" : "fp32";
}

std::string describe(TrainRun& run, double peak) {
  const auto& m = run.run_model().config;
  const plan::Schedule& schedule = run.trainer().schedule();
  return fmt::format("{:.2f} M parameters, {} layers x {}, {} replicas x {} stages{} ({}, layers cut at {}), {} tokens a step, {} on {}, peak {:.0f} GFLOP/s; {:.2f} M tokens "
                     "of text in {} documents",
                     static_cast<double>(model::num_parameters(m)) * 1e-6, m.num_layers, m.hidden_size, run.mesh().data, schedule.num_stages,
                     run.mesh().tensor > 1 ? fmt::format(" x {} ranks", run.mesh().tensor) : "", schedule.name,
                     fmt::join(run.trainer().boundaries(), ","),
                     run.batch().tokens_per_step(), name_of(run.compute()), run.device().str(), peak * 1e-9,
                     static_cast<double>(run.corpus().train->size()) * 1e-6, run.corpus().train->documents());
}

std::string describe(const Straggler& s) {
  return fmt::format("rank {} computes {:.1f} times as long as the other replicas of its stage (last {} steps)", s.rank, s.factor, StragglerWatch::kWindow);
}

class TrainLoop {
 public:
  TrainLoop(const config::TrainConfig& config, comm::Communicator& world, const TrainOptions& options)
      : config_(config), world_(world), options_(options), run_(config, world, tensor::find_device(config.device, options.local_rank).value()), stragglers_(run_.mesh()), averages_(run_.mesh().size(), run_.batch().tokens_per_step()), checkpoints_(checkpoint_options()) {}

  // `folder`: on rank 0.
  TrainSummary operator()(const RunFolder* folder) {
    const auto checkpoint = checkpoint_to_continue();
    if (checkpoint) resume(*checkpoint);
    if (folder != nullptr) folder->take_over(!checkpoint && options_.overwrite, config::to_yaml(config_));
    peak_ = measure_peak(run_.compute(), run_.device(), world_, run_.deadline());
    if (world_.rank() == 0 && !options_.quiet) spdlog::info("{}", describe(run_, peak_));
    Reporter reporter(config_, world_.rank() == 0, run_.position().step, options_.quiet);
    run_.start_clock();
    while (!run_.over() && !summary_.stopped) one_step(reporter);
    finish(reporter);
    if (options_.on_finished) options_.on_finished(summary_);
    return summary_;
  }

 private:
  // Rank 0 decides for all: where each machine starts its own ranks, their flags may differ, and for some seconds so may what they see of a network file system.
  std::optional<fs::path> checkpoint_to_continue() {
    constexpr int64_t kNone = -1, kMissing = -2;
    const fs::path folder = run_.checkpoint_place().folder;
    at::Tensor step = at::full({1}, kNone, at::kLong);
    if (world_.rank() == 0 && (options_.resume || options_.auto_resume)) {
      const auto newest = formats::newest_checkpoint(folder);
      step.fill_(newest ? formats::read_manifest(*newest).value().step : options_.resume ? kMissing : kNone);
    }
    world_.broadcast(step, 0)->wait(run_.deadline());
    const int64_t chosen = step.item<int64_t>();
    if (chosen == kMissing) throw error(Code::kNotFound, "--resume: no complete checkpoint in {}", folder.string());
    return chosen == kNone ? std::nullopt : std::optional(seen(formats::checkpoint_path(folder, chosen)));
  }

  // Waits until this rank sees it, too.
  [[nodiscard]] fs::path seen(const fs::path& checkpoint) const {
    const Deadline deadline = run_.deadline();
    while (true) {
      const auto manifest = formats::read_manifest(checkpoint);
      if (manifest.ok()) return checkpoint;
      if (deadline.passed()) throw error(manifest.error().code(), "{}; rank 0 goes on from this checkpoint: do all ranks see its folder?", manifest.error().message());
      std::this_thread::sleep_for(kLookAgain);
    }
  }

  void resume(const fs::path& checkpoint) {
    std::string changes;
    try {
      changes = run_.resume_from(checkpoint);
    } catch (const Error& e) {
      if (e.code() != Code::kDataLoss) throw;
      throw error(Code::kFailedPrecondition, "{}; {}", e.message(), way_around(checkpoint));  // not to be tried again as it is
    }
    if (world_.rank() == 0) spdlog::info("resuming from {} at step {}{}{}", checkpoint.string(), run_.position().step, changes.empty() ? "" : "; changed since: ", changes);
  }

  void one_step(Reporter& reporter) {
    const auto start = Clock::now();
    const TrainRun::Step step = run_.step(options_.stop != nullptr && options_.stop->load());
    const double seconds = to_seconds(Clock::now() - start);
    if (!step.skipped.empty()) reporter.note(fmt::format("skipped {}", step.skipped));
    averages_.add(step.sums, seconds);
    watch_stragglers(step.sums, reporter);
    summary_.losses.push_back(step.sums.mean_loss());
    summary_.stopped = step.sums.stop > 0;

    const int64_t n = run_.position().step;
    const bool last = run_.over() || summary_.stopped;
    const bool due = config_.checkpoint.every_steps > 0 && (n % config_.checkpoint.every_steps == 0 || last);
    const bool to_compare = due && config_.checkpoint.keep_best > 0;  // each checkpoint by a loss of its own
    const bool validate = to_compare || (config_.validation.every_steps > 0 && n % config_.validation.every_steps == 0 && !last);
    if (validate) validation_loss_ = run_.validate(config_.validation.batches);
    if (validate || last || to_seconds(Clock::now() - reported_at_) >= kReportInterval) {
      reported_at_ = Clock::now();
      report_.validated = validate;
      fill_report(step);
      if (!last) reporter.report(report_, run_.progress());  // the last one waits for the final validation
    }
    if (due) {
      const auto validation_loss = validate ? std::optional(validation_loss_) : std::nullopt;
      const TimeAccount::Span span(run_.time(), Spent::kCheckpoint);
      checkpoints_.start(world_, run_.state(), config::to_yaml(config_), validation_loss, run_.deadline());
    }
    if (last) finish_checkpoint();
    if (run_.timeline_is_full()) write_timeline();
    if (const auto written = checkpoints_.poll()) reporter.note(fmt::format("checkpoint of step {} written", *written));
  }

  void watch_stragglers(const StepSums& sums, Reporter& reporter) {
    const auto before = report_.stragglers;
    if (!stragglers_.add(sums.compute_seconds)) return;
    report_.stragglers = stragglers_.now();
    for (const Straggler& s : report_.stragglers) {
      if (std::ranges::find(before, s.rank, &Straggler::rank) == before.end()) reporter.note(describe(s));
    }
  }

  void finish_checkpoint() {
    const TimeAccount::Span span(run_.time(), Spent::kCheckpoint);
    checkpoints_.finish();
  }

  // Once, and before the end: a run that fails later has one.
  void write_timeline() {
    if (std::exchange(timeline_written_, true)) return;
    if (run_.keeps_earlier_timeline()) return;
    const std::string trace = run_.timeline().gather(world_, run_.deadline());
    if (world_.rank() == 0) write_file_atomic(fs::path(config_.output) / "timeline.json", trace);
  }

  // The largest of each over the ranks.
  TrainSummary::Memory memory() {
    const auto [weights, gradients] = run_.weight_and_gradient_bytes();
    const auto gpu = tensor::device_memory(run_.device());
    const double in_use = gpu ? static_cast<double>(gpu->total - gpu->free) : 0;
    at::Tensor largest = at::tensor({weights, gradients, static_cast<double>(run_.trainer().optimizer().state_bytes()), in_use}, at::kDouble);
    world_.all_reduce(largest, comm::Reduce::kMax)->wait(run_.deadline());
    const double* values = largest.data_ptr<double>();
    return {report_.peak_bytes, values[0], values[1], values[2], values[3]};
  }

  CheckpointWriter::Options checkpoint_options() {
    CheckpointWriter::Options options;
    options.place = run_.checkpoint_place();
    options.keep = config_.checkpoint.keep;
    options.keep_best = config_.checkpoint.keep_best;
    options.timeout = seconds(static_cast<int64_t>(10 * config_.timeout_seconds) + 1);  // files are slower than messages
    options.describe_model = [this](const fs::path& folder) { run_.run_model().description.write(folder); };
    return options;
  }

  void fill_report(const TrainRun::Step& step) {
    averages_.report_into(report_);
    report_.step = run_.position().step;
    report_.skipped_steps = run_.skipped_steps();
    report_.loss_scale = run_.trainer().scaler().state().scale;
    report_.elapsed_seconds = run_.position().elapsed_seconds;
    report_.validation_loss = validation_loss_;
    report_.learning_rate = step.learning_rate;
    report_.gradient_norm = step.gradient_norm;
    report_.mfu = report_.tokens_per_second * operations_per_token(run_.run_model().config, config_.batch.sequence_length) / peak_;
    mean_.add(report_);
  }

  void finish(Reporter& reporter) {
    report_.validated = true;
    report_.validation_loss = run_.validate(0);
    if (report_.step > 0) reporter.report(report_, run_.progress());  // a run that was over when it was resumed has nothing new to say
    {
      const TimeAccount::Span span(run_.time(), Spent::kExport);
      export_model(world_, run_.tensor_group(), fs::path(config_.output) / "model", run_.run_model(), run_.trainer());
    }
    write_timeline();
    reporter.finish();
    summary_.time = run_.time().mean(world_, run_.wall_seconds(), run_.deadline());
    summary_.memory = memory();
    summary_.stragglers = stragglers_.persistent();
    summary_.skipped_steps = run_.skipped_steps();
    summary_.overflowed_steps = run_.overflowed_steps();
    summary_.steps = run_.position().step;
    summary_.seconds = run_.position().elapsed_seconds;
    summary_.train_loss = report_.loss;
    summary_.validation_loss = report_.validation_loss;
    mean_.fill(summary_);
    summary_.planned_bubble = planned_bubble(run_.trainer().schedule());
    world_.barrier()->wait(run_.deadline());  // nobody leaves while another still needs it
  }

  // Means over the reports of the run.
  struct Mean {
    int count = 0;
    double tokens_per_second = 0, mfu = 0, bubble = 0, exposed = 0;
    void add(const StepReport& r) {
      ++count;
      tokens_per_second += r.tokens_per_second;
      mfu += r.mfu;
      bubble += r.bubble_share;
      exposed += r.exposed_share;
    }
    void fill(TrainSummary& summary) const {
      if (count == 0) return;
      summary.tokens_per_second = tokens_per_second / count;
      summary.mfu = mfu / count;
      summary.bubble_share = bubble / count;
      summary.exposed_share = exposed / count;
    }
  };

  const config::TrainConfig& config_;
  comm::Communicator& world_;
  const TrainOptions& options_;
  TrainRun run_;
  StragglerWatch stragglers_;
  StepAverages averages_;
  bool timeline_written_ = false;
  CheckpointWriter checkpoints_;
  StepReport report_;
  Mean mean_;
  TrainSummary summary_;
  double validation_loss_ = -1;
  double peak_ = 0;
  Clock::time_point reported_at_{};
};

}  // namespace

std::string computes_in(const config::TrainConfig& config, int local_rank) {
  const at::Device device = tensor::find_device(config.device, local_rank).value();
  return fmt::format("{} on {}", name_of(choose_compute(config.precision, device)), c10::DeviceTypeName(device.type(), true));
}

TrainSummary train(const config::TrainConfig& config, comm::Communicator& world, const TrainOptions& options) {
  std::optional<RunFolder> folder;
  if (world.rank() == 0) folder.emplace(config.output, options.resume || options.auto_resume, options.overwrite);
  world.barrier()->wait(Deadline::after(milliseconds(static_cast<int64_t>(1000 * config.network.connect_timeout_seconds))));  // the others wait for the folder
  return TrainLoop(config, world, options)(folder ? &*folder : nullptr);
}

}  // namespace penstock::train
