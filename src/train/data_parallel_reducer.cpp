#include "train/data_parallel_reducer.h"

#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "base/error.h"

namespace penstock::train {

struct DataParallelReducer::Bucket {
  at::Tensor flat;  // float32
  int num_parameters = 0;
  int missing = 0;  // gradients that have not come since arm()
  comm::WorkPtr work;
  ReductionRecord record;
};

DataParallelReducer::DataParallelReducer(std::vector<model::Parameter>& parameters, comm::Communicator* replicas, const plan::BucketLimits& limits)
    : replicas_(replicas) {
  // Backward runs through the layers from the last to the first.
  std::vector<int64_t> sizes;
  for (auto p = parameters.rbegin(); p != parameters.rend(); ++p) sizes.push_back(static_cast<int64_t>(p->value.nbytes()));
  const plan::BucketPlan plan = plan::plan_buckets(sizes, limits);
  for (const plan::Bucket& b : plan.buckets) {
    buckets_.push_back(std::make_unique<Bucket>());
    buckets_.back()->flat = at::zeros({b.size_bytes / 4}, at::kFloat);
    buckets_.back()->num_parameters = static_cast<int>(b.parameters.size());
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    model::Parameter& parameter = parameters[parameters.size() - 1 - i];
    const plan::BucketSlot& slot = plan.slots[i];
    const at::Tensor& flat = buckets_[static_cast<size_t>(slot.bucket)]->flat;
    parameter.value.mutable_grad() = flat.narrow(0, slot.offset_bytes / 4, slot.size_bytes / 4).view(parameter.value.sizes());
    auto accumulator = torch::autograd::impl::grad_accumulator(parameter.value);
    accumulator->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(
        [this, bucket = slot.bucket](const auto& outputs, const auto&) {
          on_gradient(bucket);
          return outputs;
        }));
    accumulators_.push_back(std::move(accumulator));
  }
}

DataParallelReducer::~DataParallelReducer() = default;

void DataParallelReducer::begin_step() {
  for (auto& b : buckets_) b->flat.zero_();
  launched_ = 0;
}

void DataParallelReducer::arm() {
  armed_ = true;
  for (auto& b : buckets_) b->missing = b->num_parameters;
}

void DataParallelReducer::on_gradient(int bucket) {
  if (!armed_) return;
  --buckets_[static_cast<size_t>(bucket)]->missing;
  launch_ready(false);
  note_finished();
}

void DataParallelReducer::launch_ready(bool force) {
  while (launched_ < buckets_.size() && (force || buckets_[launched_]->missing <= 0)) {
    Bucket& b = *buckets_[launched_];
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
  PENSTOCK_CHECK(armed_, "finish() without arm()");
  launch_ready(true);
  armed_ = false;
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
