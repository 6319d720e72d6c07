#include "comm/staged_communicator.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

#include "base/error.h"
#include "comm/flat_parts.h"
#include "comm/forwarding_communicator.h"

namespace penstock::comm {
namespace {

// To and from; of one shape.
using Copy = std::pair<at::Tensor, at::Tensor>;

// An operation on copies in host memory, which it keeps, and what is copied back when it is done.
class StagedWork : public Work {
 public:
  StagedWork(WorkPtr inner, std::vector<at::Tensor> hosts, std::vector<Copy> back) : inner_(std::move(inner)), hosts_(std::move(hosts)), back_(std::move(back)) {}

  void wait(Deadline deadline) override {
    inner_->wait(deadline);
    const at::NoGradGuard no_grad;
    for (auto& [to, from] : std::exchange(back_, {})) to.copy_(from);
  }
  bool done() override { return inner_->done(); }

 private:
  const WorkPtr inner_;
  const std::vector<at::Tensor> hosts_;
  std::vector<Copy> back_;
};

at::Tensor host_like(const Tensor& tensor) {
  return at::empty(tensor.sizes(), at::TensorOptions(tensor.scalar_type()).device(at::kCPU).pinned_memory(tensor.is_cuda()));
}

at::Tensor host_copy(const Tensor& tensor) {
  const at::NoGradGuard no_grad;
  return host_like(tensor).copy_(tensor);
}

class StagedCommunicator : public ForwardingCommunicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> inner, Staged which) : ForwardingCommunicator(*inner), owned_(std::move(inner)), which_(which) {}

  [[nodiscard]] Communicator& inner() const { return *owned_; }

  WorkPtr send(const Tensor& tensor, int to, int tag) override {
    if (!travels(tensor)) return owned_->send(tensor, to, tag);
    const at::Tensor host = host_copy(tensor);
    return staged(owned_->send(host, to, tag), {host}, {});
  }
  WorkPtr recv(Tensor& tensor, int from, int tag) override {
    if (!travels(tensor)) return owned_->recv(tensor, from, tag);
    at::Tensor host = host_like(tensor);
    return staged(owned_->recv(host, from, tag), {host}, {{tensor, host}});
  }
  WorkPtr all_reduce(Tensor& tensor, Reduce op) override {
    if (!travels(tensor)) return owned_->all_reduce(tensor, op);
    at::Tensor host = host_copy(tensor);
    return staged(owned_->all_reduce(host, op), {host}, {{tensor, host}});
  }
  WorkPtr broadcast(Tensor& tensor, int root) override {
    if (!travels(tensor)) return owned_->broadcast(tensor, root);
    const bool sends = rank() == root;
    at::Tensor host = sends ? host_copy(tensor) : host_like(tensor);
    return staged(owned_->broadcast(host, root), {host}, sends ? std::vector<Copy>{} : std::vector<Copy>{{tensor, host}});
  }
  WorkPtr reduce_scatter(Tensor& flat, std::span<const int64_t> offsets) override {
    if (!travels(flat)) return owned_->reduce_scatter(flat, offsets);
    at::Tensor host = host_copy(flat);
    const Copy own{own_part(flat, offsets), own_part(host, offsets)};
    return staged(owned_->reduce_scatter(host, offsets), {host}, {own});
  }
  WorkPtr all_gather(Tensor& flat, std::span<const int64_t> offsets) override {
    if (!travels(flat)) return owned_->all_gather(flat, offsets);
    at::Tensor host = host_like(flat);
    {
      const at::NoGradGuard no_grad;
      own_part(host, offsets).copy_(own_part(flat, offsets));
    }
    return staged(owned_->all_gather(host, offsets), {host}, {{flat, host}});
  }
  WorkPtr all_reduce_rounded(Tensor& tensor, Tensor& residual) override {
    if (!travels(tensor)) return owned_->all_reduce_rounded(tensor, residual);
    at::Tensor host = host_copy(tensor), host_residual = residual;
    std::vector<Copy> back = {{tensor, host}};
    if (travels(residual)) {
      host_residual = host_copy(residual);
      back.emplace_back(residual, host_residual);
    }
    return staged(owned_->all_reduce_rounded(host, host_residual), {host, host_residual}, std::move(back));
  }
  std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    auto group = owned_->split(ranks, name, deadline);
    return group ? make_staged(std::move(group), which_) : nullptr;
  }

 private:
  [[nodiscard]] bool travels(const Tensor& tensor) const {
    if (which_ == Staged::kOfDevices && tensor.is_cpu()) return false;
    PENSTOCK_CHECK(tensor.is_contiguous(), "group '{}': a tensor of {} elements with gaps", name(), tensor.numel());
    return true;
  }
  [[nodiscard]] at::Tensor own_part(const Tensor& flat, std::span<const int64_t> offsets) const {
    const std::string wrong = wrong_parts(offsets, flat.numel(), size());
    PENSTOCK_CHECK(wrong.empty(), "group '{}': {}", name(), wrong);
    const auto own = static_cast<size_t>(rank());
    return flat.detach().view({-1}).slice(0, offsets[own], offsets[own + 1]);
  }
  static WorkPtr staged(WorkPtr work, std::vector<at::Tensor> hosts, std::vector<Copy> back) {
    return std::make_unique<StagedWork>(std::move(work), std::move(hosts), std::move(back));
  }

  const std::unique_ptr<Communicator> owned_;
  const Staged which_;
};

}  // namespace

std::unique_ptr<Communicator> make_staged(std::unique_ptr<Communicator> inner, Staged which) {
  return std::make_unique<StagedCommunicator>(std::move(inner), which);
}

Communicator& unstaged(Communicator& group) {
  auto* staged = dynamic_cast<StagedCommunicator*>(&group);
  return staged != nullptr ? staged->inner() : group;
}

}  // namespace penstock::comm
