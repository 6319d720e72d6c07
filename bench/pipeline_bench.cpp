// What the executor costs and how near it comes to the plan, with ranks as threads on an emulated link.
//
//   pipeline_bench bubble     computing replaced by sleeping: measured bubble beside the simulated one, every schedule
//   pipeline_bench eager      1f1b and eager-1f1b on a link whose hop takes a quarter of a forward
//   pipeline_bench overhead   layers that do next to nothing: time and allocations per action
//   pipeline_bench memory     peak bytes of live activations beside the schedule's count
//   pipeline_bench allocations   what the executor itself allocates
#include <CLI/CLI.hpp>
#include <sys/prctl.h>

#include <atomic>
#include <thread>

#include "base/error.h"
#include "base/mutex.h"
#include "cluster/process_group.h"
#include "comm/run_job.h"
#include "comm/shaped_link.h"
#include "comm/spawn_ranks.h"
#include "pipeline/executor.h"
#include "plan/schedule_check.h"
#include "plan/simulation.h"
#include "tensor/memory_meter.h"

namespace penstock {
namespace {

using model::Tensors;

void sleep_for(microseconds time) {
  if (time.count() > 0) std::this_thread::sleep_for(time);
}

// Sleeps in forward, in the input gradient and, put off where the schedule says so, in the weight gradient.
struct Sleep {
  microseconds forward{0}, input_grad{0}, weight_grad{0};
};

struct SleepFunction : torch::autograd::Function<SleepFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const Sleep& sleep, const at::Tensor& weight,
                            kernels::WeightGradQueue* queue) {
    sleep_for(sleep.forward);
    ctx->saved_data["input"] = static_cast<int64_t>(sleep.input_grad.count());
    ctx->saved_data["weight"] = static_cast<int64_t>(sleep.weight_grad.count());
    ctx->saved_data["leaf"] = weight;
    ctx->saved_data["queue"] = reinterpret_cast<int64_t>(queue);
    return x.clone();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx, const torch::autograd::variable_list& grads) {
    const microseconds weight(ctx->saved_data["weight"].toInt());
    auto* queue = reinterpret_cast<kernels::WeightGradQueue*>(ctx->saved_data["queue"].toInt());
    sleep_for(microseconds(ctx->saved_data["input"].toInt()));
    if (queue != nullptr) {
      queue->push(ctx->saved_data["leaf"].toTensor(), [weight](at::Tensor&) { sleep_for(weight); });
    } else {
      sleep_for(weight);
    }
    return {grads[0], at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

class SleepLayer : public model::Layer {
 public:
  explicit SleepLayer(const Sleep& sleep) : sleep_(sleep), weight_(at::zeros({1}).requires_grad_(true)) {}
  Tensors forward(const Tensors& inputs, const model::ForwardContext& context) override {
    if (!at::GradMode::is_enabled()) return inputs;
    at::Tensor x = inputs[0].requires_grad() ? inputs[0] : inputs[0].detach().requires_grad_(true);
    return {SleepFunction::apply(x, sleep_, weight_.detach(), context.linear.weight_grads)};
  }
  std::vector<model::Parameter> parameters() override { return {}; }

 private:
  Sleep sleep_;
  at::Tensor weight_;
};

std::vector<model::LayerSpec> sleeping_layers(int count, const Sleep& sleep) {
  std::vector<model::LayerSpec> specs;
  for (int i = 0; i < count; ++i) {
    specs.push_back({fmt::format("sleep{}", i), "Sleep", 1, [sleep](model::SharedWeights&) { return std::make_unique<SleepLayer>(sleep); }, {}});
  }
  return specs;
}

struct Setup {
  plan::Schedule schedule;
  std::vector<model::LayerSpec> layers;  // one a stage
  std::vector<int64_t> shape{1};         // of activations
  comm::LinkShape link;
  int steps = 3;
};

struct Measured {
  double bubble = 0;          // mean over steps, the first left out
  double step_us = 0;         // of the whole pipeline: from the first action's start to the last one's end
  double own_us = 0;          // per action, on the rank with most actions: time between records that is not inside one
  size_t actions = 0;
};

// Runs steps; the records of all ranks on one clock.
Measured measure(const Setup& setup) {
  const plan::Schedule lowered = plan::proven(setup.schedule);
  std::vector<int> boundaries;
  for (int stage = 0; stage <= lowered.num_stages; ++stage) boundaries.push_back(stage);
  std::vector<std::vector<std::vector<pipeline::ActionRecord>>> records(static_cast<size_t>(setup.steps));
  for (auto& step : records) step.resize(static_cast<size_t>(lowered.num_ranks));
  comm::spawn_ranks(lowered.num_ranks, [&](comm::Communicator& plain) {
    at::set_num_threads(1);
    const auto link = comm::make_shaped_link(plain, setup.link);
    const bool shaped = setup.link.latency.count() > 0 || setup.link.bytes_per_second > 0;
    comm::Communicator& pipe = shaped ? *link : plain;
    std::vector<std::unique_ptr<pipeline::Stage>> stages;
    std::vector<pipeline::Stage*> mine;
    for (const int index : lowered.stages_of(pipe.rank())) {
      stages.push_back(std::make_unique<pipeline::Stage>(setup.layers, boundaries, index));
      mine.push_back(stages.back().get());
    }
    pipeline::Executor executor(pipe, mine, seconds(60));
    const at::Tensor input = at::ones(setup.shape);
    const std::vector<pipeline::Microbatch> batch(static_cast<size_t>(lowered.num_microbatches), pipeline::Microbatch{{input}, {}});
    pipeline::StepRequest request;
    request.schedule = &lowered;
    request.microbatches = batch;
    request.loss = [](const Tensors& outputs, const Tensors&) { return outputs[0].sum(); };
    for (auto& step : records) {
      plain.barrier()->wait(Deadline::after(seconds(60)));
      step[static_cast<size_t>(pipe.rank())] = executor.run(request).records;
    }
  });
  Measured result;
  for (size_t s = 1; s < records.size(); ++s) {
    int64_t first = INT64_MAX, last = 0, busy = 0;
    for (const auto& rank : records[s]) {
      int64_t inside = 0;
      for (const auto& r : rank) {
        inside += r.end_us - r.start_us;
        if (!plan::is_compute(r.action.kind)) continue;
        busy += r.end_us - r.start_us;
        first = std::min(first, r.start_us);
        last = std::max(last, r.end_us);
      }
      result.own_us = std::max(result.own_us, static_cast<double>(rank.back().end_us - rank.front().start_us - inside) / static_cast<double>(rank.size()));
      result.actions = std::max(result.actions, rank.size());
    }
    const double steps = static_cast<double>(records.size() - 1);
    result.step_us += static_cast<double>(last - first) / steps;
    result.bubble += (1 - static_cast<double>(busy) / static_cast<double>(lowered.num_ranks * (last - first))) / steps;
  }
  return result;
}

plan::Simulation simulate(const plan::Schedule& schedule, const Sleep& sleep, microseconds hop) {
  const plan::StageCosts costs{static_cast<double>(sleep.forward.count()), static_cast<double>((sleep.input_grad + sleep.weight_grad).count()),
                               static_cast<double>(sleep.input_grad.count()), static_cast<double>(sleep.weight_grad.count())};
  return plan::simulate(schedule, std::vector<plan::StageCosts>(static_cast<size_t>(schedule.num_stages), costs), static_cast<double>(hop.count()));
}

void bubble(int ranks, int unit_us) {
  fmt::print("{:<18} {:>3} {:>12} {:>12} {:>8} {:>16}\n", "schedule", "m", "measured", "simulated", "ratio", "step / simulated");
  for (const auto& known : plan::known_schedules()) {
    if (std::string_view(known.name) == "forward") continue;
    for (const int m : {4, 8, 16}) {
      const auto schedule = plan::make_schedule({known.name, ranks, m, 0});
      if (!schedule.ok()) continue;
      const int chunks = schedule.value().num_stages / ranks;
      const Sleep sleep{microseconds(unit_us / chunks), microseconds(unit_us / chunks), microseconds(unit_us / chunks)};
      const Measured got = measure({schedule.value(), sleeping_layers(schedule.value().num_stages, sleep), {1}, {}, 4});
      const plan::Simulation plan = simulate(schedule.value(), sleep, microseconds(0));
      fmt::print("{:<18} {:>3} {:>11.2f}% {:>11.2f}% {:>8.3f} {:>16.3f}\n", known.name, m, 100 * got.bubble, 100 * plan.bubble_share,
                 got.bubble / plan.bubble_share, got.step_us / plan.makespan);
    }
  }
}

void eager(int unit_us) {
  fmt::print("4 ranks, 64 micro-batches, a hop takes a quarter of a forward\n{:<18} {:>12} {:>12}\n", "schedule", "measured", "simulated");
  for (const char* name : {"gpipe", "1f1b", "eager-1f1b"}) {
    const auto schedule = plan::make_schedule({name, 4, 64, 0}).value();
    const Sleep sleep{microseconds(unit_us), microseconds(unit_us), microseconds(unit_us)};
    const microseconds hop(unit_us / 4);
    const Measured got = measure({schedule, sleeping_layers(4, sleep), {1}, {hop, 0}, 3});
    fmt::print("{:<18} {:>11.2f}% {:>11.2f}%\n", name, 100 * got.bubble, 100 * simulate(schedule, sleep, hop).bubble_share);
  }
}

// Keeps a known number of bytes, about those of eight transformer blocks: as many times tanh, each of which keeps its output.
class Keeper : public model::Layer {
 public:
  Tensors forward(const Tensors& inputs, const model::ForwardContext&) override {
    at::Tensor x = inputs[0].requires_grad() ? inputs[0] : inputs[0].detach().requires_grad_(true);
    for (int i = 0; i < kKept; ++i) x = at::tanh(x);
    return {x};
  }
  std::vector<model::Parameter> parameters() override { return {}; }
  static constexpr int kKept = 128;
};

// One rank of `memory`: a process of its own, as ranks that are threads copy their messages into each other's books.
void memory_rank(comm::Communicator& pipe, const std::string& name, int microbatches) {
  const std::vector<int64_t> shape{16, 1024};
  const double unit = (Keeper::kKept + 1) * 16 * 1024 * 4;  // the input is kept too
  const plan::Schedule schedule = plan::proven(plan::make_schedule({name, pipe.size(), microbatches, 0}).value());
  const std::vector<model::LayerSpec> layers(static_cast<size_t>(schedule.num_stages),
                                             {"keeper", "Keeper", 1, [](model::SharedWeights&) { return std::make_unique<Keeper>(); }, {}});
  std::vector<int> boundaries;
  for (int stage = 0; stage <= schedule.num_stages; ++stage) boundaries.push_back(stage);
  std::vector<std::unique_ptr<pipeline::Stage>> stages;
  std::vector<pipeline::Stage*> mine;
  for (const int index : schedule.stages_of(pipe.rank())) {
    stages.push_back(std::make_unique<pipeline::Stage>(layers, boundaries, index));
    mine.push_back(stages.back().get());
  }
  at::set_num_threads(1);
  pipeline::Executor executor(pipe, mine, seconds(60));
  std::vector<pipeline::Microbatch> batch;
  const tensor::MemoryMeter meter;
  for (int i = 0; i < microbatches; ++i) batch.push_back({{schedule.rank_of(0) == pipe.rank() ? at::ones(shape) : at::ones({1})}, {}});
  const int64_t before = meter.live_bytes();  // the batch itself
  pipeline::StepRequest request;
  request.schedule = &schedule;
  request.microbatches = batch;
  request.loss = [](const Tensors& outputs, const Tensors&) { return outputs[0].sum(); };
  for (int step = 0; step < 3; ++step) (void)executor.run(request);
  const auto counts = plan::simulate(schedule, std::vector<plan::StageCosts>(static_cast<size_t>(schedule.num_stages)), 0).ranks;
  const double counted = unit * counts[static_cast<size_t>(pipe.rank())].peak_live_activations, measured = static_cast<double>(meter.peak_bytes() - before);
  fmt::print("{:<18} {:>5} {:>10.1f} {:>10.1f} {:>8.3f}\n", name, pipe.rank(), measured / (1 << 20), counted / (1 << 20), measured / counted);
  std::fflush(stdout);
}

// Peak bytes of each rank against the schedule's count x what one micro-batch keeps on one stage.
void memory(const char* program, int ranks, int microbatches) {
  fmt::print("{} ranks, {} micro-batches; MiB\n{:<18} {:>5} {:>10} {:>10} {:>8}\n", ranks, microbatches, "schedule", "rank", "measured", "counted", "ratio");
  std::fflush(stdout);
  for (const char* name : {"gpipe", "1f1b", "eager-1f1b", "interleaved-1f1b", "zb-h1", "zb-v"}) {
    cluster::RankGroupOptions group;
    group.num_ranks = ranks;
    group.process.argv = {program, "memory", "--ranks", std::to_string(ranks), "--microbatches", std::to_string(microbatches), "--schedule", name};
    group.process.env = {"OMP_NUM_THREADS=1"};
    const auto processes = cluster::RankGroup::spawn(group).value();
    while (!processes->all_reported()) (void)processes->wait_any(Deadline::after(seconds(60)));
  }
}

// Allocations of a step that the layers do not make: theirs hand their input on.
class Same : public model::Layer {
 public:
  Tensors forward(const Tensors& inputs, const model::ForwardContext&) override { return inputs; }
  std::vector<model::Parameter> parameters() override { return {}; }
};

void allocations(int microbatches) {
  const plan::Schedule schedule = plan::proven(plan::make_schedule({"1f1b", 3, microbatches, 0}).value());
  const std::vector<model::LayerSpec> layers(3, {"same", "Same", 1, [](model::SharedWeights&) { return std::make_unique<Same>(); }, {}});
  comm::spawn_ranks(3, [&](comm::Communicator& pipe) {
    pipeline::Stage stage(layers, std::vector<int>{0, 1, 2, 3}, pipe.rank());
    pipeline::Executor executor(pipe, {&stage}, seconds(60));
    const std::vector<pipeline::Microbatch> batch(static_cast<size_t>(microbatches), pipeline::Microbatch{{at::ones({1024}).requires_grad_(true)}, {}});
    pipeline::StepRequest request;
    request.schedule = &schedule;
    request.microbatches = batch;
    request.loss = [](const Tensors& outputs, const Tensors&) { return outputs[0].sum(); };
    for (int step = 0; step < 4; ++step) {
      const tensor::MemoryMeter meter;
      (void)executor.run(request);
      // The local communicator copies each message once: header and activation forward, a gradient back.
      const int64_t copies = int64_t{microbatches} * ((pipe.rank() < 2 ? 2 : 0) + (pipe.rank() > 0 ? 1 : 0));
      pipe.barrier()->wait(Deadline::after(seconds(60)));
      if (pipe.rank() == 1) fmt::print("step {}: middle rank, {} micro-batches: {} allocations beside the messages' copies\n", step, microbatches, meter.allocations() - copies);
    }
  });
}

void overhead() {
  fmt::print("{:<18} {:>8} {:>22}\n", "schedule", "actions", "us per action, outside");
  for (const char* name : {"gpipe", "1f1b", "zb-h1"}) {
    const auto schedule = plan::make_schedule({name, 1, 64, 0}).value();
    const Measured got = measure({schedule, sleeping_layers(1, {}), {1}, {}, 50});
    fmt::print("{:<18} {:>8} {:>22.2f}   step {:.0f} us = {:.1f} us an action\n", name, got.actions, got.own_us, got.step_us,
               got.step_us / static_cast<double>(got.actions));
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  ::prctl(PR_SET_TIMERSLACK, 1);  // sleeps of threads that are made from here end when they should
  CLI::App app{"Measures the pipeline executor", "pipeline_bench"};
  app.require_subcommand(1);
  int ranks = 4, unit_us = 20000;
  auto* bubble = app.add_subcommand("bubble", "Measured bubble beside the simulated one, every schedule");
  bubble->add_option("--ranks", ranks)->capture_default_str();
  for (auto* command : {bubble, app.add_subcommand("eager", "1f1b and eager-1f1b on a slow link")}) {
    command->add_option("--unit-us", unit_us, "Time of a rank's forward; backward takes twice as long")->capture_default_str();
  }
  app.add_subcommand("overhead", "What an action costs beside its computing");
  int microbatches = 16;
  app.add_subcommand("allocations", "What the executor itself allocates in a step");
  std::string schedule;
  auto* memory = app.add_subcommand("memory", "Peak activation bytes of each rank beside the schedule's count");
  memory->add_option("--microbatches", microbatches)->capture_default_str();
  memory->add_option("--ranks", ranks)->capture_default_str();
  memory->add_option("--schedule", schedule, "Only this one, as a rank of a job");
  try {
    app.parse(argc, argv);
    if (app.got_subcommand("bubble")) penstock::bubble(ranks, unit_us);
    if (app.got_subcommand("eager")) penstock::eager(unit_us);
    if (app.got_subcommand("overhead")) penstock::overhead();
    if (app.got_subcommand("allocations")) penstock::allocations(16);
    if (app.got_subcommand("memory")) {
      if (schedule.empty()) {
        penstock::memory(argv[0], ranks, microbatches);
      } else {
        penstock::comm::run_job(ranks, [&](penstock::comm::Communicator& world) { penstock::memory_rank(world, schedule, microbatches); });
      }
    }
    return 0;
  } catch (const CLI::ParseError& wrong) {
    return app.exit(wrong);
  } catch (const std::exception& failed) {
    fmt::print(stderr, "pipeline_bench: {}\n", failed.what());
    return 1;
  }
}
