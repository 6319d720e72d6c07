#pragma once
// Activations and gradients between two ranks of a pipeline: every message says its own shapes.
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/layer.h"

namespace penstock::pipeline {

// Sends without waiting and receives in order. A header of fixed size with count, dtypes, shapes and which tensors want a gradient
// goes ahead of each activation; gradients need none, the receiver knows their shapes.
//
// Threads:  one thread.
// Buffering: sends keep their tensors until flush(), at the end of a step, has seen them delivered.
// Errors:   Error of the communicator; kInternal for a header that makes no sense.
class TensorLink {
 public:
  static constexpr int kMaxTensors = 8;  // in one message
  static constexpr int kMaxDims = 6;

  explicit TensorLink(comm::Communicator& ranks) : ranks_(ranks) {}

  void send_activation(int to, const model::Tensors& tensors);
  // Floating point tensors that had a gradient to carry at the sender come with requires_grad set when `training`.
  [[nodiscard]] model::Tensors recv_activation(int from, bool training, Deadline deadline);

  // Gradients of the tensors that require one, in order.
  void send_gradients(int to, const model::Tensors& gradients);
  [[nodiscard]] model::Tensors recv_gradients(int from, const model::Tensors& like, Deadline deadline);

  // Waits until everything sent has arrived.
  void flush(Deadline deadline);

 private:
  struct PendingSend {
    at::Tensor tensor;
    comm::WorkPtr work;
  };
  void post(const at::Tensor& tensor, int to, int tag);

  comm::Communicator& ranks_;
  std::vector<PendingSend> pending_;
};

}  // namespace penstock::pipeline
