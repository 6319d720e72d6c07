#pragma once
// A file that tells which process is the server of this user and this temporary folder: its number, and a lock while it lives.
#include <filesystem>
#include <optional>

#include "base/clock.h"
#include "base/error.h"

namespace penstock::cluster {

struct PidFileHolder {
  int pid = 0;
  bool told_to_stop = false;
};

// Held from take() to the destructor, which removes the file. The lock goes with the process however it ends, so a number that a dead process
// left, and which may be another's by now, is never mistaken for a server.
//
// Threads: one. The lock stays with the process that called take(): children that it starts do not inherit it.
class PidFile {
 public:
  // Writes this process's number. The file of a process that is gone is taken over.
  // Errors: kAlreadyExists naming the holder; kPermissionDenied for another user's file; kDataLoss when it cannot be written.
  [[nodiscard]] static Result<PidFile> take(const std::filesystem::path& path);
  PidFile(PidFile&& other) noexcept;
  PidFile& operator=(PidFile&&) = delete;
  ~PidFile();

  // Who holds the file; nullopt: nobody, or there is none. Errors: kPermissionDenied for another user's file.
  [[nodiscard]] static Result<std::optional<PidFileHolder>> holder(const std::filesystem::path& path);
  // Sends SIGTERM to the holder, and notes it in the file. kUnavailable: it is gone.
  [[nodiscard]] static std::optional<Error> stop(const std::filesystem::path& path, const PidFileHolder& holder);
  // Waits until nobody holds it. false: somebody does at the deadline.
  [[nodiscard]] static bool wait_free(const std::filesystem::path& path, Deadline deadline);

 private:
  PidFile(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace penstock::cluster
