#pragma once
// Scalars over steps, as TensorBoard reads them.
// Format: TFRecord framing (length, masked CRC-32C, bytes, masked CRC-32C) around Event messages of tensorflow/core/util/event.proto.
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace penstock {

// Writes events.out.tfevents.SECONDS.HOST.PID into a folder; TensorBoard joins the files of one folder into one run.
//
// Threads: one.
// Errors:  Error kDataLoss naming the file.
class TensorboardWriter {
 public:
  explicit TensorboardWriter(const std::filesystem::path& folder);

  // All of one step; visible to readers when it returns.
  void add(int64_t step, std::span<const std::pair<std::string_view, double>> scalars);

 private:
  void write_record(std::string_view event);

  std::filesystem::path path_;
  std::ofstream file_;
};

// CRC-32C (Castagnoli).
[[nodiscard]] uint32_t crc32c(std::string_view bytes);

}  // namespace penstock
