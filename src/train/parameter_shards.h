#pragma once
// Which part of each parameter a replica keeps and updates.
#include <cstdint>
#include <functional>
#include <vector>

#include "comm/communicator.h"
#include "model/layer.h"

namespace penstock::train {

// Threads:    one.
// Collective: where it says so; then over the replicas, in the same order on each.
// Lifetime:   the parameters and the group outlive it. It may move the parameters' values elsewhere; the handles stay good.
class ParameterShards {
 public:
  // `replicas` that share the work; null: everything is whole.
  ParameterShards(std::vector<model::Parameter>& parameters, comm::Communicator* replicas) : parameters_(parameters), replicas_(replicas) {}
  virtual ~ParameterShards() = default;
  ParameterShards(const ParameterShards&) = delete;
  ParameterShards& operator=(const ParameterShards&) = delete;

  // Elements of a parameter, as numbered when it is flat.
  struct Range {
    int64_t begin = 0;
    int64_t count = 0;
  };
  // What a replica updates of parameter i. In the order of the replicas these follow each other, from the first element to the last.
  [[nodiscard]] virtual Range range(size_t i, int replica) const = 0;
  [[nodiscard]] Range own(size_t i) const { return range(i, replicas_ != nullptr ? replicas_->rank() : 0); }
  // Of own(i): float32 [count], where they live.
  [[nodiscard]] virtual at::Tensor values(size_t i) const = 0;
  [[nodiscard]] virtual at::Tensor gradients(size_t i) const = 0;

  // What is here of the gradient summed over replicas, float32, flat: all of it, or own(i).
  [[nodiscard]] virtual at::Tensor summed_gradient(size_t i) const = 0;
  [[nodiscard]] virtual bool gradients_are_whole() const = 0;

  // Sets the initial values: `set` fills a parameter that is whole for that time.
  using Initializer = std::function<void(model::Parameter&)>;
  virtual void initialize(const Initializer& set);
  // After values() have changed: everyone gets them. Collective.
  virtual void share_updated(Deadline deadline) = 0;
  // Shaped as the parameter; may be the parameter itself. Collective.
  [[nodiscard]] virtual at::Tensor whole_value(size_t i, Deadline deadline) const;
  virtual void set_value(size_t i, const at::Tensor& whole);
  // Where parameter i is cut: replica r has [cuts[r], cuts[r + 1]).
  [[nodiscard]] std::vector<int64_t> cuts(size_t i) const;
  // From every replica's tensor over its own(i), such as an optimizer's moment; or over what own(i) was when cuts(i) were `cuts`. Collective.
  [[nodiscard]] at::Tensor whole(size_t i, const at::Tensor& own_part, Deadline deadline) const { return whole(i, own_part, cuts(i), deadline); }
  [[nodiscard]] at::Tensor whole(size_t i, const at::Tensor& own_part, const std::vector<int64_t>& cuts, Deadline deadline) const;

  [[nodiscard]] comm::Communicator* replicas() const { return replicas_; }

 protected:
  // Of float32 where the parameters are.
  [[nodiscard]] at::TensorOptions device_options() const;

  std::vector<model::Parameter>& parameters_;
  comm::Communicator* const replicas_;
};

// One replica that keeps and updates everything, or several that each do. All values and all gradients, in grad(), are here.
class WholeParameters final : public ParameterShards {
 public:
  explicit WholeParameters(std::vector<model::Parameter>& parameters) : ParameterShards(parameters, nullptr) {}
  [[nodiscard]] Range range(size_t i, int /*replica*/) const override { return {0, parameters_[i].value.numel()}; }
  [[nodiscard]] at::Tensor values(size_t i) const override { return parameters_[i].value.detach().view({-1}); }
  [[nodiscard]] at::Tensor gradients(size_t i) const override { return parameters_[i].value.grad().view({-1}); }
  [[nodiscard]] at::Tensor summed_gradient(size_t i) const override { return gradients(i); }
  [[nodiscard]] bool gradients_are_whole() const override { return true; }
  void share_updated(Deadline /*deadline*/) override {}
};

}  // namespace penstock::train
