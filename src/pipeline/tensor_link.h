#pragma once
// Activations and gradients between two ranks of a pipeline: every message says its own shapes.
#include <deque>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/layer.h"
#include "pipeline/buffer_pool.h"
#include "pipeline/message_shapes.h"

namespace penstock::pipeline {

// Sends without waiting, and posts receives before it needs them. A header of fixed size with count, dtypes, shapes and which tensors want
// a gradient goes ahead of each activation; gradients need none, the receiver knows their shapes. A message is known by its stage and
// micro-batch, so receives may be waited for in another order than messages are sent.
//
// An activation whose last two messages of this key were alike is expected to be so again, and its receives are posted without waiting for the
// header: it arrives while the rank computes. Both ends remember the same messages, so the sender knows what is expected; where it has something
// else to send, it meets those receives with buffers of no meaning first.
//
// Threads:   one thread.
// Buffering: a send keeps its tensors until it is known to be delivered: an activation by its gradient, all by flush() at the end of a step.
//            Activations are never waited for, as their receiver takes the payload only when it needs it. Of gradients few may be pending, as their
//            memory is not otherwise in use: then the oldest is waited for. That cannot lock ranks up: their receives are posted where the schedule
//            has them, and a proven schedule finishes even if every send waits.
//            Receive buffers come from a pool.
// Dtypes:   any; those that the communicator does not know travel as bytes.
// Errors:   Error of the communicator; kInvalidArgument for more tensors or dims than a header has room for; kInternal for a header that makes
//           no sense.
class TensorLink {
 public:
  static constexpr int kMaxTensors = 8;  // in one message
  static constexpr int kMaxDims = 6;
  static constexpr size_t kMaxPendingGradients = 2;  // messages

  // `device`: where activations and gradients are received.
  explicit TensorLink(comm::Communicator& ranks, at::Device device = at::kCPU) : ranks_(ranks), device_(device) {}

  // A receive that has been posted.
  struct Expected {
    int from = 0;
    int key = 0;
    model::Tensors tensors;           // an activation's header and what is expected behind it, or gradients
    std::vector<comm::WorkPtr> works;
  };

  // `key`: a number of the message that both sides agree on, e.g. from stage and micro-batch; small and not negative.
  void send_activation(int to, int key, const model::Tensors& tensors);
  [[nodiscard]] Expected expect_activation(int from, int key);
  // Blocks until it is here. Floating point tensors that had a gradient to carry at the sender have requires_grad set when `training`.
  [[nodiscard]] model::Tensors wait_activation(Expected expected, bool training, Deadline deadline);

  // The activation `key` has arrived, as its gradient shows: lets go of its tensors.
  void release_activation(int key, Deadline deadline);

  // Gradients of the tensors that require one, in order.
  void send_gradients(int to, int key, const model::Tensors& gradients, Deadline deadline);
  [[nodiscard]] Expected expect_gradients(int from, int key, const model::Tensors& like);
  [[nodiscard]] model::Tensors wait_gradients(Expected expected, Deadline deadline);

  // Waits until everything sent has arrived.
  void flush(Deadline deadline);

 private:
  struct PendingSend {
    int key = 0;
    std::vector<at::Tensor> tensors;
    std::vector<comm::WorkPtr> works;
    void post(comm::Communicator& ranks, const at::Tensor& tensor, int to, int tag);
    void wait(Deadline deadline);
  };
  struct Announced {
    TensorShape shape;
    bool wants_gradient = false;
  };
  [[nodiscard]] std::vector<Announced> read_header(const at::Tensor& header, int from) const;
  void post_receive(Expected& expected, const TensorShape& shape);
  void meet_expected_receives(PendingSend& message, const model::Tensors& tensors, int to);

  comm::Communicator& ranks_;
  const at::Device device_;
  MessageShapes sent_, received_;            // activations
  std::deque<PendingSend> activations_, gradients_;  // on their way
  BufferPool buffers_;
};

}  // namespace penstock::pipeline
