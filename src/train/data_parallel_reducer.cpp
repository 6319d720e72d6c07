#include "train/data_parallel_reducer.h"

#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "comm/flat_parts.h"
#include "comm/recorded_communicator.h"

namespace penstock::train {

struct DataParallelReducer::Bucket {
  enum class State { kAdding, kWaitsForHooks, kWaitsForCalls };

  at::Tensor flat;            // float32
  int64_t begin = 0;          // elements, in the memory of all
  std::vector<int64_t> parts;  // replica r's is [parts[r], parts[r + 1])
  int num_parameters = 0;
  int missing = 0;  // gradients that have not come since arm()
  State state = State::kAdding;
  comm::WorkPtr work;
  ReductionRecord record;
};

DataParallelReducer::DataParallelReducer(const std::vector<std::vector<at::Tensor>>& stages, comm::Communicator* replicas, const plan::BucketLimits& limits,
                                         Deadline deadline, Sums sums, const std::vector<at::Tensor>& alone)
    : replicas_(replicas), limits_(limits), sums_(sums), order_(replicas != nullptr ? Order::kObserving : Order::kFixed) {
  int64_t total_bytes = 0;
  for (size_t s = 0; s < stages.size(); ++s) {
    Stage& stage = stages_.emplace_back();
    stage.first_parameter = parameters_.size();
    for (const at::Tensor& value : stages[s]) {
      const bool is_alone = std::ranges::any_of(alone, [&](const at::Tensor& other) { return other.is_same(value); });
      parameters_.push_back({.value = value, .stage = s, .position = static_cast<int>(parameters_.size() - stage.first_parameter), .alone = is_alone});
    }
    // Backward runs through the layers from the last to the first.
    stage.order.resize(stages[s].size());
    std::iota(stage.order.rbegin(), stage.order.rend(), 0);
    for (const plan::Bucket& bucket : plan_of(stage).buckets) total_bytes += bucket.size_bytes;  // whatever the order
  }
  // Also without replicas the gradients are one piece of memory. Ranks can share memory of the host only.
  const at::Device device = parameters_.empty() ? at::Device(at::kCPU) : parameters_.front().value.device();
  const bool shared = replicas != nullptr && device.is_cpu();
  memory_ = shared ? replicas->reduction_buffer(total_bytes, deadline) : at::zeros({total_bytes}, at::TensorOptions(at::kByte).device(device));
  for (size_t i = 0; i < parameters_.size(); ++i) watch(i);
  lay_out();
}

void DataParallelReducer::watch(size_t index) {
  const at::Tensor& value = parameters_[index].value;
  index_of_[value.unsafeGetTensorImpl()] = index;
  auto accumulator = torch::autograd::impl::grad_accumulator(value);
  accumulator->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>([this, index](const auto& outputs, const auto&) {
    Parameter& parameter = parameters_[index];
    parameter.has_gradient = true;
    if (buckets_[parameter.bucket]->state == Bucket::State::kWaitsForHooks) gradient_came(parameter);
    return outputs;
  }));
  accumulators_.push_back(std::make_shared<decltype(accumulator)>(std::move(accumulator)));  // a shared_ptr, or LibTorch 2.15's intrusive_ptr
}

plan::BucketPlan DataParallelReducer::plan_of(const Stage& stage) const {
  std::vector<int64_t> sizes;
  std::vector<bool> alone;
  for (const int position : stage.order) {
    const Parameter& parameter = parameters_[stage.first_parameter + static_cast<size_t>(position)];
    sizes.push_back(static_cast<int64_t>(parameter.value.nbytes()));
    alone.push_back(parameter.alone);
  }
  return plan::plan_buckets(sizes, limits_, alone);
}

void DataParallelReducer::lay_out() {
  std::vector<at::Tensor> remembered;
  for (const Parameter& parameter : parameters_) remembered.push_back(rounds_ ? residual(parameter.value) : at::Tensor());
  buckets_.clear();
  int64_t offset = 0;
  for (Stage& stage : stages_) lay_out(stage, offset);
  if (rounds_) move_residuals(remembered);
}

void DataParallelReducer::lay_out(Stage& stage, int64_t& offset) {
  const plan::BucketPlan plan = plan_of(stage);
  stage.first_bucket = buckets_.size();
  for (const plan::Bucket& b : plan.buckets) {
    buckets_.push_back(std::make_unique<Bucket>());
    buckets_.back()->flat = memory_.narrow(0, offset, b.size_bytes).view(at::kFloat);
    buckets_.back()->begin = offset / 4;
    buckets_.back()->parts = comm::even_parts(b.size_bytes / 4, replicas_ != nullptr ? replicas_->size() : 1);
    buckets_.back()->num_parameters = static_cast<int>(b.parameters.size());
    offset += b.size_bytes;
  }
  stage.last_bucket = buckets_.size();
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    Parameter& parameter = parameters_[stage.first_parameter + static_cast<size_t>(stage.order[i])];
    const plan::BucketSlot& slot = plan.slots[i];
    parameter.bucket = stage.first_bucket + static_cast<size_t>(slot.bucket);
    parameter.begin = slot.offset_bytes / 4;
    parameter.value.mutable_grad() = buckets_[parameter.bucket]->flat.narrow(0, parameter.begin, slot.size_bytes / 4).view(parameter.value.sizes());
  }
}

DataParallelReducer::~DataParallelReducer() = default;

void DataParallelReducer::round_to_bf16() {
  rounds_ = true;
  residual_ = at::zeros({num_elements()}, at::kFloat);
}

at::Tensor DataParallelReducer::residual(const at::Tensor& value) const {
  const Place where = place(value);
  return residual_.narrow(0, where.bucket + where.begin, value.numel());
}

void DataParallelReducer::scale_residuals(double factor) { residual_.nan_to_num_(0, 0, 0).mul_(factor); }

// `before`: by parameter, in the old memory.
void DataParallelReducer::move_residuals(const std::vector<at::Tensor>& before) {
  residual_ = at::zeros({num_elements()}, at::kFloat);
  for (size_t i = 0; i < parameters_.size(); ++i) residual(parameters_[i].value).copy_(before[i]);
}

const DataParallelReducer::Parameter& DataParallelReducer::known(const at::Tensor& value) const {
  const auto found = index_of_.find(value.unsafeGetTensorImpl());
  PENSTOCK_CHECK(found != index_of_.end(), "a parameter of {} elements is in no bucket", value.numel());
  return parameters_[found->second];
}

DataParallelReducer::Place DataParallelReducer::place(const at::Tensor& value) const {
  const Parameter& parameter = known(value);
  Place where = place_of_bucket(static_cast<int>(parameter.bucket));
  where.begin = parameter.begin;
  return where;
}

DataParallelReducer::Place DataParallelReducer::place_of_bucket(int bucket) const {
  const Bucket& b = *buckets_.at(static_cast<size_t>(bucket));
  return {b.begin, 0, b.parts};
}

std::vector<int64_t> DataParallelReducer::orders() const {
  std::vector<int64_t> all;
  for (const Stage& stage : stages_) all.insert(all.end(), stage.order.begin(), stage.order.end());
  return all;
}

bool DataParallelReducer::set_orders(std::span<const int64_t> orders) {
  if (orders.size() != parameters_.size()) return false;
  std::vector<std::vector<int>> found;
  for (const Stage& stage : stages_) {
    std::vector<int>& order = found.emplace_back();
    for (const int64_t position : orders.subspan(stage.first_parameter, stage.order.size())) {
      if (position < 0 || position >= static_cast<int64_t>(stage.order.size())) return false;
      order.push_back(static_cast<int>(position));
    }
    if (!std::ranges::is_permutation(order, stage.order)) return false;
  }
  for (size_t s = 0; s < stages_.size(); ++s) stages_[s].order = found[s];
  lay_out();
  order_ = Order::kFixed;
  return true;
}

void DataParallelReducer::begin_step() {
  if (order_ == Order::kChanged) {
    lay_out();
    order_ = Order::kFixed;
  }
  for (auto& b : buckets_) b->state = Bucket::State::kAdding;
  memory_.zero_();
  for (Parameter& parameter : parameters_) parameter.has_gradient = false;
  for (Stage& stage : stages_) stage.observed.clear();
  launched_ = 0;
}

void DataParallelReducer::arm(size_t stage_index, const std::vector<at::Tensor>* pending) {
  const Stage& stage = stages_.at(stage_index);
  for (size_t i = stage.first_bucket; i < stage.last_bucket; ++i) {
    buckets_[i]->state = pending != nullptr ? Bucket::State::kWaitsForCalls : Bucket::State::kWaitsForHooks;
    buckets_[i]->missing = pending != nullptr ? 0 : buckets_[i]->num_parameters;
  }
  if (pending == nullptr) return;
  for (const at::Tensor& value : *pending) {
    const Parameter* parameter = find(value);
    if (parameter != nullptr) ++buckets_[parameter->bucket]->missing;
  }
  launch_ready(false);
}

DataParallelReducer::Parameter* DataParallelReducer::find(const at::Tensor& parameter) {
  const auto found = index_of_.find(parameter.unsafeGetTensorImpl());
  return found != index_of_.end() ? &parameters_[found->second] : nullptr;
}

bool DataParallelReducer::has_gradient(const at::Tensor& parameter) const {
  const auto found = index_of_.find(parameter.unsafeGetTensorImpl());
  return found != index_of_.end() && parameters_[found->second].has_gradient;
}

void DataParallelReducer::complete(const at::Tensor& value) {
  Parameter* parameter = find(value);
  if (parameter == nullptr) return;
  parameter->has_gradient = true;
  if (buckets_[parameter->bucket]->state == Bucket::State::kWaitsForCalls) gradient_came(*parameter);
}

void DataParallelReducer::gradient_came(const Parameter& parameter) {
  if (order_ == Order::kObserving) stages_[parameter.stage].observed.push_back(parameter.position);
  --buckets_[parameter.bucket]->missing;
  launch_ready(false);
  note_finished();
}

void DataParallelReducer::launch_ready(bool force) {
  while (launched_ < buckets_.size()) {
    Bucket& b = *buckets_[launched_];
    if (!force && (b.state == Bucket::State::kAdding || b.missing > 0)) return;
    b.record = {static_cast<int>(launched_), static_cast<int64_t>(b.flat.nbytes()), now_us(), 0};
    if (replicas_ != nullptr) {
      comm::next_is_bucket(*replicas_, static_cast<int>(launched_));
      b.work = reduce(b);
    }
    ++launched_;
  }
}

comm::WorkPtr DataParallelReducer::reduce(Bucket& b) {
  if (rounds_) {
    at::Tensor residual = residual_.narrow(0, b.begin, b.flat.numel());
    return replicas_->all_reduce_rounded(b.flat, residual);
  }
  return sums_ == Sums::kOwnPart ? replicas_->reduce_scatter(b.flat, b.parts) : replicas_->all_reduce(b.flat, comm::Reduce::kSum);
}

void DataParallelReducer::note_finished() {
  for (auto& b : buckets_) {
    if (b->work && b->record.end_us == 0 && b->work->done()) b->record.end_us = now_us();
  }
}

std::vector<ReductionRecord> DataParallelReducer::finish(Deadline deadline) {
  for (const auto& b : buckets_) PENSTOCK_CHECK(b->state != Bucket::State::kAdding, "finish() before every stage was armed");
  launch_ready(true);
  std::vector<ReductionRecord> records;
  for (auto& b : buckets_) {
    if (!b->work) continue;
    b->work->wait(deadline);
    b->work.reset();
    if (b->record.end_us == 0) b->record.end_us = now_us();
    records.push_back(b->record);
  }
  if (order_ == Order::kObserving) agree_on_order(deadline);
  return records;
}

// Replicas may have seen different orders; the first one's counts. Gradients that nobody told of one by one, because they were complete when the
// stage was armed, come first; those that never came, last.
void DataParallelReducer::agree_on_order(Deadline deadline) {
  at::Tensor seen = at::empty({static_cast<int64_t>(parameters_.size())}, at::kLong);
  int64_t* next = seen.data_ptr<int64_t>();
  for (const Stage& stage : stages_) {
    std::vector<bool> told(stage.order.size());
    for (const int position : stage.observed) told[static_cast<size_t>(position)] = true;
    const auto untold = [&](bool has_gradient) {
      return [&, has_gradient](int position) {
        return !told[static_cast<size_t>(position)] && parameters_[stage.first_parameter + static_cast<size_t>(position)].has_gradient == has_gradient;
      };
    };
    next = std::ranges::copy_if(stage.order, next, untold(true)).out;
    next = std::ranges::copy(stage.observed, next).out;
    next = std::ranges::copy_if(stage.order, next, untold(false)).out;
  }
  replicas_->broadcast(seen, 0)->wait(deadline);
  order_ = Order::kFixed;
  next = seen.data_ptr<int64_t>();
  for (Stage& stage : stages_) {
    const std::vector<int> order(next, next + stage.order.size());
    if (order != stage.order) order_ = Order::kChanged;
    stage.order = order;
    next += order.size();
  }
}

}  // namespace penstock::train
