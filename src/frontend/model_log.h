#pragma once
// model_log.log: what the workers of all models print, in one file, as TorchServe keeps it.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <thread>

#include "base/clock.h"
#include "base/mutex.h"

namespace penstock::frontend {

// "W-9001-tiny_2.0" for the folder "tiny:2.0-1" of a worker group's logs; empty: it is none.
[[nodiscard]] std::string worker_of_folder(std::string_view folder);

// Follows FOLDER/MODEL-GROUP/rank-R.log of all groups: every line that is added becomes `TIME [INFO ] W-9000-MODEL_VERSION-stdout MODEL_LOG - LINE`. What stood
// there before is passed over. A line that is longer than 16 KiB is cut into several. A rank that writes faster than 4 MiB between two looks loses the rest
// here, not in its own file.
//
// Threads: one of its own looks twice a second; write is called on it, and by the destructor, which looks once more.
class ModelLog {
 public:
  ModelLog(std::filesystem::path folder, std::function<void(std::string_view line)> write);
  ~ModelLog();
  ModelLog(const ModelLog&) = delete;
  ModelLog& operator=(const ModelLog&) = delete;

 private:
  struct Followed {
    std::uintmax_t read = 0;  // bytes
    std::string rest;         // a line that has not ended yet
  };
  void run() EXCLUDES(mutex_);
  void look();
  void follow(const std::filesystem::path& file, const std::string& worker, Followed& state) const;
  void write_line(const std::string& worker, std::string_view line) const;

  const std::filesystem::path folder_;
  const std::function<void(std::string_view)> write_;
  std::map<std::filesystem::path, Followed> files_;  // its thread's
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace penstock::frontend
