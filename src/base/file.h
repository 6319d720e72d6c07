#pragma once
// Files: whole-file reads with a limit, writes that are never seen half done, read-only maps.
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace penstock {

// The whole file; of a pipe all that comes, with ten seconds of silence at most. Error kNotFound (absent), kInvalidArgument (a folder, or larger than `limit_bytes`), kDeadlineExceeded (silence), kDataLoss (read failed).
[[nodiscard]] Result<std::string> read_file(const std::filesystem::path& path, size_t limit_bytes);

// Writes to a sibling temporary file, fsyncs it, renames it over `path` and fsyncs the folder:
// a reader sees the old bytes or the new ones. Throws Error kDataLoss naming the path and the cause.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes);

// For a path that a user typed: as write_file_atomic for a regular or a new file; a link's target is written, and a device or a pipe is written
// to, not replaced. Throws Error kInvalidArgument naming the path and the cause.
void write_output(const std::filesystem::path& path, std::string_view bytes);

// fsyncs a file or a folder. Throws Error kDataLoss.
void sync_path(const std::filesystem::path& path);

// A file mapped read-only; pages are read when touched. Movable, unmapped by the destructor.
class MappedFile {
 public:
  // Error kNotFound or kDataLoss.
  [[nodiscard]] static Result<MappedFile> open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace penstock
