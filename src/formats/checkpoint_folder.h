#pragma once
// Checkpoints on disk: which there are, what is in them, and whether it is still what was written. Reads no tensor's values.
//
// A checkpoint is a folder step-00000050 of stage files (safetensors), manifest.json and hugging_face/ (config.json and the tokenizer's files).
// Tensors have the names and shapes of the Hugging Face checkpoint, the optimizer's moments with ".m" and ".v" behind: nothing in it depends on how
// the model was cut. With gradients that travel rounded (train/rounding_errors.h) there are also NAME.rounding-PIPE-REPLICA, what that replica of that pipe
// rank still has to give back of a tensor's gradients, and bucket_order-PIPE-of-PIPES. It is written as step-00000050.writing and renamed when all is there: a torn one never has the final name.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/weight_stream.h"

namespace penstock::formats {

struct CheckpointManifest {
  int64_t step = 0;
  double elapsed_seconds = 0;
  int64_t tokens = 0;
  int64_t skipped_steps = 0, skipped_in_a_row = 0;
  double loss_scale = 0;  // of precision fp16; 0 = none
  int64_t loss_scale_good_steps = 0, overflowed_steps = 0;
  std::vector<double> recent_losses;      // nats per token, of the last steps, to know a spike by
  std::optional<double> validation_loss;  // nats per byte, measured at this step, if it was
  std::string config;                     // of the run, YAML
  struct File {
    uint64_t bytes = 0;
    std::map<std::string, uint32_t> tensors;  // CRC-32 of each; empty in checkpoints of version 1
  };
  std::map<std::string, File> files;  // by name
  std::map<std::string, uint32_t> description;  // CRC-32 of each file that describes the model; empty in checkpoints of older versions
};

inline constexpr const char* kModelDescription = "hugging_face";  // the folder inside
inline constexpr const char *kRoundingMark = ".rounding-", *kBucketOrder = "bucket_order-";  // in names of tensors

[[nodiscard]] std::filesystem::path checkpoint_path(const std::filesystem::path& folder, int64_t step);
// Where it is written before it is complete.
[[nodiscard]] std::filesystem::path unfinished_path(const std::filesystem::path& checkpoint);

[[nodiscard]] std::string to_json(const CheckpointManifest& manifest);
// Also checks that every file is there with its length. kDataLoss names the file, what was expected and found.
[[nodiscard]] Result<CheckpointManifest> read_manifest(const std::filesystem::path& checkpoint);

// Folders with a final name, oldest step first; their manifests are not looked at.
[[nodiscard]] std::vector<std::filesystem::path> finished_checkpoints(const std::filesystem::path& folder);
// The newest whose manifest can be read. Others are logged and skipped.
[[nodiscard]] std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder);

// Removes all but the `keep` newest that are complete and the `keep_best` of these with the lowest validation loss, and what unfinished writes left
// behind. A damaged one counts for neither; it stays where it is newer than all that are complete.
void remove_old_checkpoints(const std::filesystem::path& folder, int keep, int keep_best);

// What writes that were interrupted left in a folder of checkpoints. Throws std::filesystem::filesystem_error.
void remove_unfinished(const std::filesystem::path& folder);

// CRC-32 of each file that describes the model, by name.
[[nodiscard]] std::map<std::string, uint32_t> description_checksums(const std::filesystem::path& checkpoint);

// Reads every byte. Throws Error kDataLoss naming file and tensor at the first checksum that differs. `progress`: share of the bytes done.
void verify_checkpoint(const std::filesystem::path& checkpoint, const std::function<void(double)>& progress);

// The weights without the optimizer's state as a Hugging Face directory, which must not exist; rounded to the dtype that config.json of the model's
// description names. Throws Error kDataLoss (a checksum that differs, a disk that is full), kAlreadyExists (the directory), kFailedPrecondition (a
// checkpoint of version 1 without model description).
void export_checkpoint(const std::filesystem::path& checkpoint, const std::filesystem::path& output, const std::function<void(double)>& progress,
                       uint64_t max_shard_bytes = kMaxShardBytes);

}  // namespace penstock::formats
