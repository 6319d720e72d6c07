#pragma once
// The folder that a run writes into.
#include <filesystem>
#include <string>

namespace penstock::train {

// Held by rank 0 as long as the run lasts, so that two runs do not write the same one.
//
// Threads: one.
class RunFolder {
 public:
  // Makes the folder where it is missing. Blocks for five seconds at most, while a run that was killed lets go of it.
  // Throws Error: kAlreadyExists where another run writes it; kFailedPrecondition where it holds checkpoints and `goes_on` and `anew` are false; kInvalidArgument where
  // it cannot be made, or something else has the name of a folder in it; kDataLoss where it cannot be written to.
  RunFolder(const std::filesystem::path& folder, bool goes_on, bool anew);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  // Once nothing is wrong with configuration, data and model, as a run that was refused leaves the folder as it was: removes what interrupted writes have
  // left there, with `anew` also the checkpoints, and writes config.yaml. Throws Error kDataLoss.
  void take_over(bool anew, const std::string& config_yaml) const;

 private:
  void lock();

  const std::filesystem::path folder_;
  int lock_ = -1;
};

// What to do about a checkpoint that is damaged: which older one there is.
[[nodiscard]] std::string way_around(const std::filesystem::path& damaged);

}  // namespace penstock::train
