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
  // From every replica's tensor over its own(i), such as an optimizer's moment. Collective.
  [[nodiscard]] at::Tensor whole(size_t i, const at::Tensor& own_part, Deadline deadline) const;

  [[nodiscard]] comm::Communicator* replicas() const { return replicas_; }

 protected:
  std::vector<model::Parameter>& parameters_;
  comm::Communicator* const replicas_;
};

// Every replica has all values and all gradients in grad(). Without replicas it updates everything; with them a part of about equal size (ZeRO stage 1,
// Rajbhandari et al. 2020): the values, moved into one flat tensor, are cut into as many runs as there are replicas.
class FlatShards final : public ParameterShards {
 public:
  FlatShards(std::vector<model::Parameter>& parameters, comm::Communicator* replicas);
  [[nodiscard]] Range range(size_t i, int replica) const override;
  [[nodiscard]] at::Tensor values(size_t i) const override;
  [[nodiscard]] at::Tensor gradients(size_t i) const override;
  [[nodiscard]] at::Tensor summed_gradient(size_t i) const override;
  [[nodiscard]] bool gradients_are_whole() const override { return true; }
  void share_updated(Deadline deadline) override;

 private:
  [[nodiscard]] Range run(int replica) const;  // of the flat values

  at::Tensor flat_;
  std::vector<int64_t> offsets_;  // of each parameter in it
};

}  // namespace penstock::train
