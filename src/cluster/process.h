#pragma once
// A child process: started without surprises in a threaded parent, watched, and never left behind.
#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"

namespace penstock::cluster {

// How a process ended.
struct ExitStatus {
  bool signalled = false;
  int value = 0;  // the signal, or the exit code

  [[nodiscard]] bool success() const { return !signalled && value == 0; }
  [[nodiscard]] std::string describe() const;  // "exit code 3", "killed by signal 9 (SIGKILL)"
  bool operator==(const ExitStatus&) const = default;
};

struct ProcessOptions {
  std::vector<std::string> argv;               // argv[0]: a path, or a name to look up in PATH
  std::vector<std::string> env;                // "NAME=value", added to the inherited environment or overriding it
  std::vector<std::string> unset;              // names of variables that are not inherited
  std::optional<std::filesystem::path> log_file;  // stdout and stderr are appended there; absent = inherited
  std::filesystem::path working_folder;        // empty = inherited
  std::vector<int> cores;                      // it and its threads run on these only; empty = where this process may run
  bool hold_stop_signals = false;              // starts with SIGINT and SIGTERM blocked: one that comes early waits until the program takes it
  bool kill_with_parent = true;                // SIGKILL when this process dies, however it dies
  bool new_process_group = true;               // Ctrl-C in the terminal does not reach it; signals from here reach its children too
};

// Threads:  every method may be called from any thread.
// Owns:     the process, and one thread that started it and sleeps until it ends (Linux ties kill_with_parent to the starting thread,
//           not to the process). The destructor kills the process, waits for its end and joins the thread.
class ChildProcess {
 public:
  // Returns once the program runs. Errors: kNotFound or kPermissionDenied naming the program when it cannot be run;
  // kUnavailable when no process can be made; kDataLoss when the log file cannot be opened.
  // The child starts with default SIGPIPE, no blocked signals but those of hold_stop_signals, stdin from /dev/null, and no open files but 0, 1 and 2.
  [[nodiscard]] static Result<std::unique_ptr<ChildProcess>> spawn(ProcessOptions options);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  // How it ended; nullopt while it runs. The same answer every time.
  [[nodiscard]] std::optional<ExitStatus> try_wait() EXCLUDES(mutex_);
  // Waits for its end until the deadline; nullopt when it still runs then.
  [[nodiscard]] std::optional<ExitStatus> wait(Deadline deadline) EXCLUDES(mutex_);
  // SIGTERM and SIGKILL; nothing when it has ended already.
  void terminate() EXCLUDES(mutex_);
  void kill() EXCLUDES(mutex_);
  // Readable (poll) when the process has ended; for waiting on several. Valid while this object lives.
  [[nodiscard]] int pid_fd() const { return pid_fd_; }

 private:
  ChildProcess(pid_t pid, int pid_fd, bool own_group, std::thread keeper);
  void signal(int number) EXCLUDES(mutex_);

  const pid_t pid_;
  const int pid_fd_;
  const bool own_group_;
  std::thread keeper_;
  Mutex mutex_;
  std::optional<ExitStatus> status_ GUARDED_BY(mutex_);
};

}  // namespace penstock::cluster
