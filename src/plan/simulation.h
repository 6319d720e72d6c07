#pragma once
// When each action of a schedule starts and ends, given what its stages cost: bubble share and memory before anything runs.
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "plan/schedule.h"

namespace penstock::plan {

// What one micro-batch costs on one stage, in any one unit of time.
struct StageCosts {
  double forward = 1;
  double backward = 2;     // input_grad + weight_grad, done at once
  double input_grad = 1;
  double weight_grad = 1;
};

struct TimedAction {
  Action action;
  double start = 0;
  double end = 0;  // a receive overlaps what its rank computes meanwhile: it ends when the message has arrived
};

struct RankTimeline {
  std::vector<TimedAction> actions;  // in the order of the rank's list
  double busy = 0;                   // time spent computing
  double idle = 0;                   // makespan - busy
  // The most (stage, micro-batch) pairs that were forwarded and whose backward or input gradient had not yet ended ...
  int peak_live_activations = 0;
  // ... and whose weight gradient had not yet ended: what weight gradients need is kept that long.
  int peak_kept_for_weights = 0;
};

struct Simulation {
  double makespan = 0;      // from the first action's start (0) to the last one's end
  double bubble_share = 0;  // idle time of all ranks / (ranks x makespan)
  std::vector<RankTimeline> ranks;
};

// Takes a schedule with or without communication; both give the same times. A rank computes one action at a time, in order;
// sends and receives cost it nothing, and a value reaches another rank `hop_latency` after it was made (0 on the same rank).
// `costs` holds one entry per stage. Throws Error kInvalidArgument when an action's input is never made.
[[nodiscard]] Simulation simulate(const Schedule& schedule, std::span<const StageCosts> costs, double hop_latency);

// The same, each compute action with a time of its own: what a run would have been with the times that were measured.
using ActionCost = std::function<double(const Action&)>;
[[nodiscard]] Simulation simulate(const Schedule& schedule, const ActionCost& cost, double hop_latency);

// What the literature gives for the bubble share on equal stages without hop latency and a synchronised step; nullopt when it gives nothing.
//   gpipe, 1f1b, eager-1f1b, interleaved-1f1b, looped-bfs    (p-1) / (m·v + p-1)
//   zb-h1     (p-1)(F+I-W) / (m·v·(F+I+W) + (p-1)(F+I-W))
//   forward   (p-1) / (m·v + p-1)
// `costs` are those of one stage. Holds for m >= p. Sources: Narayanan et al. 2021; Qi et al. 2023.
[[nodiscard]] std::optional<double> bubble_formula(const Schedule& schedule, const StageCosts& costs);

}  // namespace penstock::plan
