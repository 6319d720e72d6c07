#include "engine/stage_loop.h"

#include <optional>

#include "engine/sampling_thread.h"
#include "engine/stage_link.h"

namespace penstock::engine {

int make_caches(StageRunner& runner, comm::Communicator* stages, seconds timeout) {
  at::Tensor fewest = at::full({1}, -runner.affordable_pages(), at::kLong);  // there is a largest number, and no smallest
  comm::Communicator* tensor = runner.tensor() == nullptr ? nullptr : &runner.tensor()->group();
  if (tensor != nullptr) tensor->all_reduce(fewest, comm::Reduce::kMax)->wait(Deadline::after(timeout));
  if (stages != nullptr && stages->size() > 1) stages->all_reduce(fewest, comm::Reduce::kMax)->wait(Deadline::after(timeout));
  if (tensor != nullptr) tensor->broadcast(fewest, 0)->wait(Deadline::after(timeout));
  const int num_pages = static_cast<int>(-fewest.item<int64_t>());
  runner.make_cache(num_pages);
  return num_pages;
}

void run_stage(StageRunner& runner, comm::Communicator& stages, int max_sequences, seconds timeout, const std::function<void(const Error&)>& on_sampling_failure) {
  (void)make_caches(runner, &stages, timeout);
  StageLink link(stages, max_sequences, timeout), answers(stages, max_sequences, timeout);
  const bool last = stages.rank() == stages.size() - 1;
  std::optional<SamplingThread> sampling;
  if (last) {
    sampling.emplace([&](const StepPlan& plan, const at::Tensor& logits) {
      answers.send_samples(plan, runner.sampler().sample(plan, logits));
    }, timeout, on_sampling_failure);
  }
  for (;;) {
    StepPlan plan = link.recv_plan(Deadline::after(kSilence));
    if (!last) link.send_plan(plan);
    if (plan.kind != StepKind::kCompute) runner.tell(plan);
    if (plan.kind == StepKind::kStop) break;
    if (plan.kind == StepKind::kIdle) continue;
    at::Tensor out = runner.forward(plan, link.recv_hidden(plan.rows(), runner.config().hidden_size));
    if (last) sampling->put(std::move(plan), std::move(out));
    else link.send_hidden(out);
  }
  if (sampling) sampling->finish();
  link.flush();
  answers.flush();
}

void follow_stage(StageRunner& runner, int max_sequences, seconds timeout) {
  (void)make_caches(runner, nullptr, timeout);
  TensorLink leader(*runner.tensor(), max_sequences);
  for (;;) {
    const StepPlan plan = leader.recv_plan(Deadline::after(kSilence));
    if (plan.kind == StepKind::kStop) return;
    if (plan.kind == StepKind::kIdle) continue;
    (void)runner.forward(plan, runner.stage().is_first() ? leader.recv_ids(plan.rows()) : leader.recv_hidden(plan.rows(), runner.config().hidden_size));
  }
}

}  // namespace penstock::engine
