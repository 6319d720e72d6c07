// Whole batches: cut into micro-batches that all ranks agree on, trained on and evaluated.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "pipeline/microbatch.h"
#include "train/pipeline_trainer.h"

namespace penstock::train {
namespace {

// Targets of a padded batch are negative and count nothing.
double count_items(const model::Tensors& targets) {
  const at::Tensor& first = targets.at(0);
  const bool ids = at::isIntegralType(first.scalar_type(), /*includeBool=*/false);
  return ids ? static_cast<double>(first.ge(0).sum().item<int64_t>()) : static_cast<double>(first.numel());
}

double rows_of(const model::Tensors& tensors) { return tensors[0].dim() > 0 ? static_cast<double>(tensors[0].size(0)) : 1; }

}  // namespace

// Ranks see different parts of the batch; all must find theirs well, or all refuse it.
PipelineTrainer::Batch PipelineTrainer::agree_on_batch(const model::Tensors& inputs, const model::Tensors& targets, bool with_targets, const ItemCount& items) {
  Batch batch;
  std::optional<Error> wrong;
  const bool has_inputs = has_first_stage(), has_targets = has_last_stage() && with_targets;
  double rows = 0, target_rows = 0;
  try {
    if (has_targets && targets.empty()) throw error(Code::kInvalidArgument, "micro-batches: expected targets on the rank of the last stage, found none");
    if (has_inputs && inputs.empty()) throw error(Code::kInvalidArgument, "micro-batches: expected inputs on the rank of the first stage, found none");
    if (has_inputs) rows = rows_of(inputs);
    if (has_targets) target_rows = rows_of(targets);
    const bool nothing = (has_inputs && rows == 0) || (has_targets && target_rows == 0);
    if (!nothing) batch.microbatches = pipeline::split_batch(inputs, targets, options_.microbatches, has_inputs, has_targets);
    if (has_targets && !nothing) batch.items = items ? items(targets) : count_items(targets);
  } catch (const Error& e) {
    wrong = e;
  }
  const auto replicas = static_cast<int64_t>(mesh().data);
  at::Tensor sums = at::zeros({2 + 2 * replicas}, at::kDouble);
  double* value = sums.data_ptr<double>();
  double *all_rows = value + 2, *all_target_rows = all_rows + replicas;  // by replica
  value[0] = batch.items / mesh().tensor;
  value[1] = wrong ? 1 : 0;
  all_rows[replica()] = rows / mesh().tensor;
  all_target_rows[replica()] = (with_targets ? target_rows : rows) / mesh().tensor;
  world_.all_reduce(sums, comm::Reduce::kSum)->wait(deadline());
  if (wrong) throw *wrong;
  if (value[1] > 0) throw error(Code::kInvalidArgument, "micro-batches: {:.0f} of {} ranks refused their part of the batch and say why", value[1], world_.size());
  for (int64_t r = 0; r < replicas; ++r) {
    batch.rows += all_rows[r];
    if (std::abs(all_rows[r] - all_target_rows[r]) < 0.5) continue;
    throw error(Code::kInvalidArgument, "micro-batches: replica {} has {:.0f} rows of inputs, {:.0f} of targets; expected as many", r, all_rows[r], all_target_rows[r]);
  }
  batch.items = value[0];
  const auto own_rows = static_cast<size_t>(all_rows[replica()] + 0.5);
  if (own_rows == 0) batch.microbatches.clear();
  for (size_t i = own_rows; i < batch.microbatches.size(); ++i) batch.microbatches[i].counts = false;  // known to the last stage by this alone
  return batch;
}

StepOutcome PipelineTrainer::train_batch(const model::Tensors& inputs, const model::Tensors& targets, const pipeline::LossFunction& loss,
                                         double learning_rate, const ItemCount& items) {
  const Batch batch = agree_on_batch(inputs, targets, true, items);
  if (batch.rows < 0.5) return {};
  const Gradients gradients = compute_gradients(batch.microbatches, loss, batch.items > 0 ? 1 / batch.items : 0);
  at::Tensor sums = at::empty({2}, at::kDouble);
  double* values = sums.data_ptr<double>();
  values[0] = gradients.step.loss_sum / mesh().tensor;
  values[1] = gradient_square();
  world_.all_reduce(sums, comm::Reduce::kSum)->wait(deadline());
  StepOutcome outcome{batch.items > 0 ? values[0] / batch.items : 0, std::sqrt(values[1]), batch.items};
  outcome.overflowed = take_overflow(outcome.loss, outcome.gradient_norm);
  if (outcome.overflowed) return outcome;
  if (!std::isfinite(outcome.loss) || !std::isfinite(outcome.gradient_norm)) explain_not_finite(updates_ + 1, gradients.step);
  update(updates_ + 1, learning_rate, outcome.gradient_norm);
  return outcome;
}

model::Tensors PipelineTrainer::eval_batch(const model::Tensors& inputs) {
  const Batch batch = agree_on_batch(inputs, {}, false, {});
  const pipeline::StepResult result = evaluate(batch.microbatches, nullptr, true);
  std::vector<model::Tensors> parts;
  for (const auto& [microbatch, outputs] : result.outputs) parts.push_back(outputs);
  return pipeline::merge_outputs(parts);
}

}  // namespace penstock::train
