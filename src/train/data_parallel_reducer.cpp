#include "train/data_parallel_reducer.h"

#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "base/error.h"

namespace penstock::train {

struct DataParallelReducer::Bucket {
  enum class State { kAdding, kWaitsForHooks, kWaitsForCalls };

  at::Tensor flat;  // float32
  int num_parameters = 0;
  int missing = 0;  // gradients that have not come since arm()
  State state = State::kAdding;
  comm::WorkPtr work;
  ReductionRecord record;
};

DataParallelReducer::DataParallelReducer(const std::vector<std::vector<at::Tensor>>& stages, comm::Communicator* replicas,
                                         const plan::BucketLimits& limits, Deadline deadline)
    : replicas_(replicas) {
  // Backward runs through the layers from the last to the first.
  std::vector<plan::BucketPlan> plans;
  int64_t total_bytes = 0;
  for (const auto& parameters : stages) {
    std::vector<int64_t> sizes;
    for (auto p = parameters.rbegin(); p != parameters.rend(); ++p) sizes.push_back(static_cast<int64_t>(p->nbytes()));
    plans.push_back(plan::plan_buckets(sizes, limits));
    for (const plan::Bucket& bucket : plans.back().buckets) total_bytes += bucket.size_bytes;
  }
  // Also without replicas the gradients are one piece of memory.
  at::Tensor memory = replicas != nullptr ? replicas->reduction_buffer(total_bytes, deadline) : at::zeros({total_bytes}, at::kByte);
  int64_t offset = 0;
  for (size_t stage = 0; stage < stages.size(); ++stage) {
    const size_t first = buckets_.size();
    offset = add_stage(stages[stage], plans[stage], memory, offset);
    stage_buckets_.emplace_back(first, buckets_.size());
  }
}

// Returns where in `memory` the next stage begins.
int64_t DataParallelReducer::add_stage(const std::vector<at::Tensor>& parameters, const plan::BucketPlan& plan, const at::Tensor& memory, int64_t offset) {
  const size_t first = buckets_.size();
  for (const plan::Bucket& b : plan.buckets) {
    buckets_.push_back(std::make_unique<Bucket>());
    buckets_.back()->flat = memory.narrow(0, offset, b.size_bytes).view(at::kFloat);
    buckets_.back()->num_parameters = static_cast<int>(b.parameters.size());
    offset += b.size_bytes;
  }
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    at::Tensor parameter = parameters[parameters.size() - 1 - i];
    const plan::BucketSlot& slot = plan.slots[i];
    const size_t bucket = first + static_cast<size_t>(slot.bucket);
    parameter.mutable_grad() = buckets_[bucket]->flat.narrow(0, slot.offset_bytes / 4, slot.size_bytes / 4).view(parameter.sizes());
    watch(parameter, bucket);
  }
  return offset;
}

void DataParallelReducer::watch(const at::Tensor& parameter, size_t bucket) {
  bucket_of_[parameter.unsafeGetTensorImpl()] = bucket;
  auto accumulator = torch::autograd::impl::grad_accumulator(parameter);
  accumulator->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>([this, bucket](const auto& outputs, const auto&) {
    on_hook(bucket);
    return outputs;
  }));
  accumulators_.push_back(std::make_shared<decltype(accumulator)>(std::move(accumulator)));  // a shared_ptr, or LibTorch 2.15's intrusive_ptr
}

DataParallelReducer::~DataParallelReducer() = default;

void DataParallelReducer::begin_step() {
  for (auto& b : buckets_) {
    b->flat.zero_();
    b->state = Bucket::State::kAdding;
  }
  launched_ = 0;
}

void DataParallelReducer::arm(size_t stage, const std::vector<at::Tensor>* pending) {
  const auto [first, last] = stage_buckets_.at(stage);
  for (size_t i = first; i < last; ++i) {
    buckets_[i]->state = pending != nullptr ? Bucket::State::kWaitsForCalls : Bucket::State::kWaitsForHooks;
    buckets_[i]->missing = pending != nullptr ? 0 : buckets_[i]->num_parameters;
  }
  if (pending == nullptr) return;
  for (const at::Tensor& parameter : *pending) {
    const auto found = bucket_of_.find(parameter.unsafeGetTensorImpl());
    if (found != bucket_of_.end()) ++buckets_[found->second]->missing;
  }
  launch_ready(false);
}

void DataParallelReducer::on_hook(size_t bucket) {
  if (buckets_[bucket]->state == Bucket::State::kWaitsForHooks) gradient_came(*buckets_[bucket]);
}

void DataParallelReducer::complete(const at::Tensor& parameter) {
  const auto found = bucket_of_.find(parameter.unsafeGetTensorImpl());
  if (found == bucket_of_.end()) return;
  Bucket& bucket = *buckets_[found->second];
  if (bucket.state == Bucket::State::kWaitsForCalls) gradient_came(bucket);
}

void DataParallelReducer::gradient_came(Bucket& bucket) {
  --bucket.missing;
  launch_ready(false);
  note_finished();
}

void DataParallelReducer::launch_ready(bool force) {
  while (launched_ < buckets_.size()) {
    Bucket& b = *buckets_[launched_];
    if (!force && (b.state == Bucket::State::kAdding || b.missing > 0)) return;
    b.record = {static_cast<int>(launched_), static_cast<int64_t>(b.flat.nbytes()), now_us(), 0};
    if (replicas_ != nullptr) b.work = replicas_->all_reduce(b.flat, comm::Reduce::kSum);
    ++launched_;
  }
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
  return records;
}

}  // namespace penstock::train
