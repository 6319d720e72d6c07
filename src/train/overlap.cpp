#include "train/overlap.h"

#include <algorithm>

#include "base/error.h"
#include "comm/forwarding_communicator.h"
#include "tensor/device.h"
#include "train/train_run.h"

namespace penstock::train {
namespace {

constexpr int kWarmUp = 2;
constexpr double kOneBucketMib = 65536;

class DoneWork : public comm::Work {
 public:
  void wait(Deadline /*deadline*/) override {}
  bool done() override { return true; }
};

// Every rank keeps what it has.
class NoReduction : public comm::ForwardingCommunicator {
 public:
  explicit NoReduction(std::unique_ptr<comm::Communicator> inner) : ForwardingCommunicator(*inner), owned_(std::move(inner)) {}
  comm::WorkPtr all_reduce(at::Tensor& /*tensor*/, comm::Reduce /*op*/) override { return std::make_unique<DoneWork>(); }
  comm::WorkPtr reduce_scatter(at::Tensor& /*flat*/, std::span<const int64_t> /*offsets*/) override { return std::make_unique<DoneWork>(); }
  comm::WorkPtr all_gather(at::Tensor& /*flat*/, std::span<const int64_t> /*offsets*/) override { return std::make_unique<DoneWork>(); }
  comm::WorkPtr all_reduce_rounded(at::Tensor& /*tensor*/, at::Tensor& /*residual*/) override { return std::make_unique<DoneWork>(); }

 private:
  const std::unique_ptr<comm::Communicator> owned_;
};

// The world as it is, but for the groups of replicas.
class ReplicasBy : public comm::ForwardingCommunicator {
 public:
  using Wrap = std::function<std::unique_ptr<comm::Communicator>(std::unique_ptr<comm::Communicator>)>;
  ReplicasBy(comm::Communicator& inner, Wrap wrap) : ForwardingCommunicator(inner), wrap_(std::move(wrap)) {}
  std::unique_ptr<comm::Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    auto group = ForwardingCommunicator::split(ranks, name, deadline);
    return group && name.starts_with("data[") ? wrap_(std::move(group)) : std::move(group);
  }

 private:
  const Wrap wrap_;
};

// One of the three runs.
struct Contender {
  Contender(const config::TrainConfig& c, comm::Communicator& world, at::Device device, ReplicasBy::Wrap wrap)
      : config(c), replicas(world, std::move(wrap)), run(config, replicas, device) {
    run.start_clock();
  }
  const config::TrainConfig config;
  ReplicasBy replicas;
  TrainRun run;
  std::vector<double> step_us;
  double exposed_seconds = 0;
};

// The slowest rank's time.
double longest(comm::Communicator& world, double us, Deadline deadline) {
  at::Tensor value = at::full({1}, us, at::kDouble);
  world.all_reduce(value, comm::Reduce::kMax)->wait(deadline);
  return value.item<double>();
}

std::vector<double> minus(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> difference;
  for (size_t i = 0; i < a.size(); ++i) difference.push_back(a[i] - b[i]);
  return difference;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

}  // namespace

OverlapReport measure_overlap(const config::TrainConfig& config, comm::Communicator& world, const OverlapOptions& options) {
  if (config.mesh.data < 2) throw error(Code::kInvalidArgument, "mesh.data: expected 2 or more replicas, found {}: one alone reduces nothing", config.mesh.data);
  if (config.sharding >= config::Sharding::kGradients) {
    throw error(Code::kInvalidArgument, "sharding: expected none or optimizer; with gradients or parameters there is no run without communication to compare with");
  }
  const ReplicasBy::Wrap linked = [&](std::unique_ptr<comm::Communicator> group) -> std::unique_ptr<comm::Communicator> {
    if (options.link.latency.count() == 0 && options.link.bytes_per_second == 0) return group;
    return comm::make_shaped_link(std::move(group), options.link);
  };
  config::TrainConfig one_bucket = config;
  one_bucket.bucket_mib = kOneBucketMib;
  const at::Device device = tensor::find_device(config.device, options.local_rank).value();
  Contender overlapped(config, world, device, linked), after(one_bucket, world, device, linked);
  Contender without(config, world, device, [](std::unique_ptr<comm::Communicator> group) { return std::make_unique<NoReduction>(std::move(group)); });

  for (int step = 0; step < kWarmUp + options.steps; ++step) {
    for (Contender* contender : {&overlapped, &after, &without}) {
      world.barrier()->wait(overlapped.run.deadline());
      const int64_t start = now_us();
      const TrainRun::Step done = contender->run.step(false);
      const double us = longest(world, static_cast<double>(now_us() - start), overlapped.run.deadline());
      if (step < kWarmUp) continue;
      contender->step_us.push_back(us);
      contender->exposed_seconds += done.sums.exposed_seconds / world.size();
    }
  }
  OverlapReport report;
  report.without_us = median(without.step_us);
  report.communication_us = median(minus(after.step_us, without.step_us));
  report.exposed_us = median(minus(overlapped.step_us, without.step_us));
  double seconds = 0;
  for (const double us : overlapped.step_us) seconds += us * 1e-6;
  report.by_timestamps = overlapped.exposed_seconds / seconds;
  for (const model::Parameter& p : overlapped.run.trainer().parameters()) report.bytes += static_cast<int64_t>(p.value.nbytes());
  return report;
}

}  // namespace penstock::train
