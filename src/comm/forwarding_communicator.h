#pragma once
// A Communicator that hands every call to another one: the base of those that change a few calls only.
#include <memory>
#include <string>

#include "comm/communicator.h"

namespace penstock::comm {

// Lifetime: `inner` outlives it. Threads, blocking, errors: those of `inner`.
class ForwardingCommunicator : public Communicator {
 public:
  explicit ForwardingCommunicator(Communicator& inner) : inner_(inner) {}
  [[nodiscard]] int rank() const override { return inner_.rank(); }
  [[nodiscard]] int size() const override { return inner_.size(); }
  [[nodiscard]] const std::string& name() const override { return inner_.name(); }
  [[nodiscard]] WorkPtr send(const Tensor& tensor, int to, int tag) override { return inner_.send(tensor, to, tag); }
  [[nodiscard]] WorkPtr recv(Tensor& tensor, int from, int tag) override { return inner_.recv(tensor, from, tag); }
  [[nodiscard]] WorkPtr all_reduce(Tensor& tensor, Reduce op) override { return inner_.all_reduce(tensor, op); }
  [[nodiscard]] WorkPtr broadcast(Tensor& tensor, int root) override { return inner_.broadcast(tensor, root); }
  [[nodiscard]] WorkPtr reduce_scatter(Tensor& flat, std::span<const int64_t> offsets) override { return inner_.reduce_scatter(flat, offsets); }
  [[nodiscard]] WorkPtr all_gather(Tensor& flat, std::span<const int64_t> offsets) override { return inner_.all_gather(flat, offsets); }
  [[nodiscard]] WorkPtr barrier() override { return inner_.barrier(); }
  [[nodiscard]] Tensor reduction_buffer(int64_t bytes, Deadline deadline) override { return inner_.reduction_buffer(bytes, deadline); }
  [[nodiscard]] WorkPtr all_reduce_rounded(Tensor& tensor, Tensor& residual) override { return inner_.all_reduce_rounded(tensor, residual); }
  [[nodiscard]] int64_t bytes_sent() const override { return inner_.bytes_sent(); }
  [[nodiscard]] std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    return inner_.split(ranks, name, deadline);
  }

 private:
  Communicator& inner_;
};

}  // namespace penstock::comm
