#include "comm/recorded_communicator.h"

#include <ATen/core/Tensor.h>

#include <numeric>

#include "base/clock.h"

namespace penstock::comm {
namespace {

class RecordedWork : public Work {
 public:
  RecordedWork(FlightRecorder& recorder, uint64_t id, WorkPtr inner) : recorder_(recorder), id_(id), inner_(std::move(inner)) {}

  void wait(Deadline deadline) override {
    if (ended_) return inner_->wait(deadline);
    recorder_.wait_begins(id_);
    inner_->wait(deadline);
    ended_ = true;
    recorder_.end(id_, done_us_ != 0 ? done_us_ : now_us());
  }

  // Whether it is done well shows wait().
  bool done() override {
    const bool done = inner_->done();
    if (done && done_us_ == 0) done_us_ = now_us();
    return done;
  }

 private:
  FlightRecorder& recorder_;
  const uint64_t id_;
  const WorkPtr inner_;
  int64_t done_us_ = 0;
  bool ended_ = false;
};

class RecordedCommunicator : public Communicator {
 public:
  // `ranks`: of the world, by rank of this group.
  RecordedCommunicator(Communicator& inner, std::unique_ptr<Communicator> owned, std::vector<int> ranks, FlightRecorder& recorder)
      : owned_(std::move(owned)), inner_(inner), ranks_(std::move(ranks)), recorder_(recorder), group_(recorder.add_group(inner.name(), ranks_)) {}

  [[nodiscard]] int rank() const override { return inner_.rank(); }
  [[nodiscard]] int size() const override { return inner_.size(); }
  [[nodiscard]] const std::string& name() const override { return inner_.name(); }
  [[nodiscard]] FlightRecorder& recorder() const { return recorder_; }
  void next_is_bucket(int bucket) { bucket_ = bucket; }

  WorkPtr send(const Tensor& tensor, int to, int tag) override {
    const uint64_t id = message("send", tensor, to, tag);
    return recorded(id, inner_.send(tensor, to, tag));
  }
  WorkPtr recv(Tensor& tensor, int from, int tag) override {
    const uint64_t id = message("recv", tensor, from, tag);
    return recorded(id, inner_.recv(tensor, from, tag));
  }
  WorkPtr all_reduce(Tensor& tensor, Reduce op) override {
    const uint64_t id = collective(op == Reduce::kSum ? "all_reduce(sum)" : "all_reduce(max)", static_cast<int64_t>(tensor.nbytes()));
    return recorded(id, inner_.all_reduce(tensor, op));
  }
  WorkPtr broadcast(Tensor& tensor, int root) override {
    const uint64_t id = collective("broadcast", static_cast<int64_t>(tensor.nbytes()));
    return recorded(id, inner_.broadcast(tensor, root));
  }
  WorkPtr reduce_scatter(Tensor& flat, std::span<const int64_t> offsets) override {
    const uint64_t id = collective("reduce_scatter", static_cast<int64_t>(flat.nbytes()));
    return recorded(id, inner_.reduce_scatter(flat, offsets));
  }
  WorkPtr all_gather(Tensor& flat, std::span<const int64_t> offsets) override {
    const uint64_t id = collective("all_gather", static_cast<int64_t>(flat.nbytes()));
    return recorded(id, inner_.all_gather(flat, offsets));
  }
  WorkPtr all_reduce_rounded(Tensor& tensor, Tensor& residual) override {
    const uint64_t id = collective("all_reduce_rounded", static_cast<int64_t>(tensor.nbytes()));
    return recorded(id, inner_.all_reduce_rounded(tensor, residual));
  }
  [[nodiscard]] int64_t bytes_sent() const override { return inner_.bytes_sent(); }
  WorkPtr barrier() override {
    const uint64_t id = collective("barrier", 0);
    return recorded(id, inner_.barrier());
  }

  Tensor reduction_buffer(int64_t bytes, Deadline deadline) override {
    const Blocking blocking(*this, "reduction_buffer", bytes);
    return inner_.reduction_buffer(bytes, deadline);
  }

  std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    const Blocking blocking(*this, "split", 0);
    auto group = inner_.split(ranks, name, deadline);
    if (!group) return nullptr;
    std::vector<int> members;
    for (const int rank : ranks) members.push_back(ranks_[static_cast<size_t>(rank)]);
    Communicator& inner = *group;
    return std::make_unique<RecordedCommunicator>(inner, std::move(group), std::move(members), recorder_);
  }

 private:
  // A collective that waits inside its call.
  class Blocking {
   public:
    Blocking(RecordedCommunicator& group, const char* name, int64_t bytes) : scope_(&group.recorder_, group.next_collective(name, bytes)) {}

   private:
    FlightScope scope_;
  };

  FlightEntry next_collective(const char* name, int64_t bytes) {
    return {.kind = FlightEntry::Kind::kCollective, .name = name, .group = group_, .bucket = std::exchange(bucket_, -1), .sequence = ++num_collectives_, .bytes = bytes};
  }
  uint64_t collective(const char* name, int64_t bytes) { return recorder_.begin(next_collective(name, bytes)); }
  uint64_t message(const char* name, const Tensor& tensor, int peer, int tag) {
    return recorder_.begin({.kind = FlightEntry::Kind::kMessage, .name = name, .group = group_, .peer = peer, .tag = tag, .bytes = static_cast<int64_t>(tensor.nbytes())});
  }
  WorkPtr recorded(uint64_t id, WorkPtr work) { return std::make_unique<RecordedWork>(recorder_, id, std::move(work)); }

  const std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
  const std::vector<int> ranks_;
  FlightRecorder& recorder_;
  const int group_;
  int64_t num_collectives_ = 0;
  int bucket_ = -1;
};

}  // namespace

std::unique_ptr<Communicator> make_recorded(Communicator& inner, FlightRecorder& recorder) {
  std::vector<int> ranks(static_cast<size_t>(inner.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return std::make_unique<RecordedCommunicator>(inner, nullptr, std::move(ranks), recorder);
}

FlightRecorder* recorder_of(const Communicator& group) {
  const auto* recorded = dynamic_cast<const RecordedCommunicator*>(&group);
  return recorded != nullptr ? &recorded->recorder() : nullptr;
}

void next_is_bucket(Communicator& group, int bucket) {
  if (auto* recorded = dynamic_cast<RecordedCommunicator*>(&group)) recorded->next_is_bucket(bucket);
}

}  // namespace penstock::comm
