#include "engine/stage_loop.h"

#include "engine/stage_link.h"

namespace penstock::engine {

void run_stage(StageRunner& runner, comm::Communicator& stages, int max_sequences, seconds timeout) {
  StageLink link(stages, max_sequences, timeout);
  const bool last = stages.rank() == stages.size() - 1;
  for (;;) {
    const StepPlan plan = link.recv_plan(Deadline::after(kSilence));
    if (!last) link.send_plan(plan);
    if (plan.kind == StepKind::kStop) break;
    if (plan.kind == StepKind::kIdle) continue;
    const at::Tensor out = runner.forward(plan, link.recv_hidden(plan.rows(), runner.config().hidden_size));
    if (!last) {
      link.send_hidden(out);
    } else if (plan.samples() > 0) {
      link.send_ids(sample_rows(plan, out));
    }
  }
  link.flush();
}

}  // namespace penstock::engine
