#pragma once
// Writes checkpoints in the background, while the next steps run.
#include <atomic>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/flight_recorder.h"
#include "base/mutex.h"
#include "comm/communicator.h"
#include "formats/checkpoint_folder.h"
#include "train/train_state.h"
#include "weights/safetensors.h"

namespace penstock::train {

struct CheckpointPlace {
  std::filesystem::path folder;  // of all checkpoints of the run; on a file system that all ranks see
  int pipe_rank = 0, pipe_ranks = 1;  // of this rank, and of all
  int replica = 0, replicas = 1;
  bool writes = true;  // false on the ranks that share layers with one that does
};

// Every rank writes a file; of those that share layers the first one does, with whole parameters: any layout loads what any other wrote. The replicas of a pipe rank share its parameters out among them, whole ones, so that each writes about as many bytes; what is
// sharded comes from those who have it, one parameter at a time.
//
// start() copies weights and moments; a thread of low priority writes this rank's file, fsyncs it and leaves a note of its checksums beside it. Rank 0's
// thread waits for all notes, writes the manifest and renames the folder (formats/checkpoint_folder.h): a torn checkpoint never has the final name.
//
// Threads:  one calls all methods. The destructor gives up a write that is not done.
// Memory:   the copy: three times this rank's weights (with LAMB, AdamW) divided by the number of replicas, and once its weights with reduce_dtype bf16, kept until the file is written.
// Errors:   what the thread failed with (a full disk) is thrown by the next call, naming the file.
class CheckpointWriter {
 public:
  struct Options {
    CheckpointPlace place;
    int keep = 2;
    int keep_best = 0;
    seconds timeout{600};  // for the files of the other ranks
    std::function<void(const std::filesystem::path& folder)> describe_model = {};  // writes config.json and the tokenizer's files; called on rank 0's thread
  };
  explicit CheckpointWriter(Options options) : options_(std::move(options)) {}
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Collective over `world`, where `state` is sharded or shared also over the ranks that have the rest. Waits for the checkpoint before, then returns when the state is copied.
  void start(comm::Communicator& world, const TrainState& state, const std::string& config_yaml, std::optional<double> validation_loss, Deadline deadline);

  // The step of a checkpoint that was completed since the last call; on rank 0 only.
  [[nodiscard]] std::optional<int64_t> poll();

  // Blocks until the last one is written.
  void finish();

 private:
  struct Job {
    std::filesystem::path target, unfinished;
    std::vector<weights::NamedTensor> tensors;
    std::optional<formats::CheckpointManifest> manifest;  // rank 0
    FlightRecorder* recorder = nullptr;
  };
  void run(Job job) noexcept;
  void write_own_file(const Job& job) const;
  void complete(Job& job);
  void rethrow() EXCLUDES(mutex_);

  const Options options_;
  std::thread thread_;
  std::atomic<bool> give_up_{false};
  Mutex mutex_;
  std::optional<Error> failed_ GUARDED_BY(mutex_);
  std::optional<int64_t> completed_ GUARDED_BY(mutex_);
};

}  // namespace penstock::train
