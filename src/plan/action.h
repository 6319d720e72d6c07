#pragma once
// One entry of a pipeline schedule: do this, for that micro-batch, on that stage.
#include <optional>
#include <string>
#include <string_view>

namespace penstock::plan {

enum class ActionKind {
  kForward,
  kBackward,      // both gradients at once
  kInputGrad,     // the part that the previous stage waits for
  kWeightGrad,    // the part that nobody waits for
  kSendForward,   // activations to the next stage
  kRecvForward,   // activations from the previous stage
  kSendBackward,  // gradients to the previous stage
  kRecvBackward,  // gradients from the next stage
};

// `stage` is the stage that acts: a send names the producer, a receive names the consumer.
struct Action {
  ActionKind kind = ActionKind::kForward;
  int stage = 0;       // global, 0 = the one that reads the input
  int microbatch = 0;
  // A forward that shares one slot with the backward right behind it in the list (DualPipeV): torch's OVERLAP_F_B.
  bool joined = false;

  // By what is done; `joined` says only how.
  friend bool operator==(const Action& a, const Action& b) {
    return a.kind == b.kind && a.stage == b.stage && a.microbatch == b.microbatch;
  }
};

[[nodiscard]] constexpr bool is_send(ActionKind kind) {
  return kind == ActionKind::kSendForward || kind == ActionKind::kSendBackward;
}
[[nodiscard]] constexpr bool is_recv(ActionKind kind) {
  return kind == ActionKind::kRecvForward || kind == ActionKind::kRecvBackward;
}
[[nodiscard]] constexpr bool is_compute(ActionKind kind) { return !is_send(kind) && !is_recv(kind); }
// Makes the gradient that the previous stage waits for.
[[nodiscard]] constexpr bool makes_input_grad(ActionKind kind) { return kind == ActionKind::kBackward || kind == ActionKind::kInputGrad; }
// Completes the weights' gradients of its micro-batch.
[[nodiscard]] constexpr bool makes_weight_grad(ActionKind kind) { return kind == ActionKind::kBackward || kind == ActionKind::kWeightGrad; }

// The stage at the other end of a send or a receive. REQUIRES: not a compute action.
[[nodiscard]] int peer_stage(const Action& action);

// The receive that takes what this send sends, and the other way round. REQUIRES: not a compute action.
[[nodiscard]] Action counterpart(const Action& action);

// "F", "B", "I", "W", "SEND_F", "RECV_F", "SEND_B", "RECV_B": the notation of torch.distributed.pipelining.
[[nodiscard]] std::string_view to_string(ActionKind kind);

// STAGE KIND MICROBATCH, e.g. "0F0", "3B2", "0SEND_F0", "1RECV_F0".
[[nodiscard]] std::string to_string(const Action& action);

// The inverse of to_string; nullopt for anything else.
[[nodiscard]] std::optional<Action> parse_action(std::string_view text);

}  // namespace penstock::plan
