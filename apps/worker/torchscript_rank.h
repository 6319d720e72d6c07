#pragma once
// The worker of a torch.jit file.
#include <string>

namespace penstock {

struct TorchscriptOptions {
  std::string model;            // the file
  std::string name;             // the model's, for answers
  std::string socket;           // it answers the front door there
  int batch_size = 1;           // requests of one run
  int max_batch_delay_ms = 100;
};
// Returns the exit code. Prints what went wrong on stderr.
int run_torchscript_rank(const TorchscriptOptions& options);

}  // namespace penstock
