#pragma once
// Lines for log files, written in batches by a thread of its own: whoever logs never waits for a disk.
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/clock.h"
#include "base/mutex.h"

namespace penstock {

struct LineWriterOptions {
  size_t max_file_bytes = 100 << 20;  // then it becomes FILE.1.log, that one FILE.2.log, and so on
  size_t kept_files = 5;              // besides the current one
  size_t max_waiting_bytes = 4 << 20; // of one file; what comes then is lost
};

// Threads: write() and lost() from any thread; it takes a lock for the time of a copy. open() before the first write().
// Errors:  a line that cannot be kept (full disk, slow disk, no such folder) is lost and counted, and a warning says so, at most once a
//          minute. A file that cannot be opened is tried again with every batch.
// Blocks:  only the destructor, which writes what waits.
class LineWriter {
 public:
  explicit LineWriter(LineWriterOptions options = {});
  ~LineWriter();
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;

  // The number of the file, for write(). Makes its folder; lines are appended.
  [[nodiscard]] size_t open(const std::filesystem::path& file) EXCLUDES(mutex_);
  // `line` without its end.
  void write(size_t file, std::string_view line) EXCLUDES(mutex_);
  // Lines that no file has.
  [[nodiscard]] uint64_t lost() const EXCLUDES(mutex_);

 private:
  struct File;
  void run() EXCLUDES(mutex_);
  void write_batch(File& file, const std::string& text, uint64_t lines) EXCLUDES(mutex_);

  const LineWriterOptions options_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::unique_ptr<File>> files_ GUARDED_BY(mutex_);
  uint64_t lost_ GUARDED_BY(mutex_) = 0;
  bool pending_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  Clock::time_point next_warning_{};  // its thread's
  std::thread thread_;                // last: it uses the members above
};

}  // namespace penstock
