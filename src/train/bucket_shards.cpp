#include "train/bucket_shards.h"

#include <algorithm>

namespace penstock::train {

BucketShards::BucketShards(std::vector<model::Parameter>& parameters, comm::Communicator& replicas, const DataParallelReducer& reducer)
    : ParameterShards(parameters, &replicas), reducer_(reducer) {
  follow();
}

void BucketShards::follow() {
  const at::NoGradGuard no_grad;
  flat_ = at::zeros({reducer_.num_elements()}, device_options());  // the old one goes with the last value that leaves it
  for (model::Parameter& p : parameters_) {
    const DataParallelReducer::Place place = reducer_.place(p.value);
    const at::Tensor moved = flat_.narrow(0, place.bucket + place.begin, p.value.numel()).view(p.value.sizes());
    moved.copy_(p.value);
    p.value.set_data(moved);
  }
}

ParameterShards::Range BucketShards::range(size_t i, int replica) const {
  const int64_t size = parameters_[i].value.numel();
  const DataParallelReducer::Place place = reducer_.place(parameters_[i].value);
  const auto r = static_cast<size_t>(replica);
  const int64_t begin = std::clamp(place.parts[r] - place.begin, int64_t{0}, size), end = std::clamp(place.parts[r + 1] - place.begin, int64_t{0}, size);
  return {begin, end - begin};
}

at::Tensor BucketShards::values(size_t i) const {
  const Range r = own(i);
  return parameters_[i].value.detach().view({-1}).narrow(0, r.begin, r.count);
}

at::Tensor BucketShards::gradients(size_t i) const {
  const Range r = own(i);
  return parameters_[i].value.grad().view({-1}).narrow(0, r.begin, r.count);
}

void BucketShards::share_updated(Deadline deadline) {
  std::vector<comm::WorkPtr> works;
  std::vector<at::Tensor> buckets;  // stay where they are until all works are done
  buckets.reserve(static_cast<size_t>(reducer_.num_buckets()));
  for (int b = 0; b < reducer_.num_buckets(); ++b) {
    const DataParallelReducer::Place place = reducer_.place_of_bucket(b);
    buckets.push_back(flat_.narrow(0, place.bucket, place.parts.back()));
    works.push_back(replicas_->all_gather(buckets.back(), place.parts));
  }
  for (auto& work : works) work->wait(deadline);
}

}  // namespace penstock::train
