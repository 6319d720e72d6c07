#pragma once
// The command line of TorchServe, for its scripts and its users' habits.

namespace penstock {

// What the program does when it is called `torchserve`. Answers the exit code.
[[nodiscard]] int run_torchserve(int argc, char** argv);

}  // namespace penstock
