#pragma once
// A file that is written piece by piece and appears under its name only when it is complete.
#include <filesystem>
#include <string_view>

namespace penstock {

// Writes to a sibling temporary file; commit() fsyncs and renames it. Without commit() the destructor removes it.
//
// Threads: one.
// Errors:  every method throws Error kDataLoss naming the path and the cause (a full disk, a read-only folder).
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* verb) const;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
};

}  // namespace penstock
