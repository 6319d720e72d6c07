#include "cluster/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <future>
#include <map>
#include <string_view>

#include "cluster/poll_timeout.h"

namespace penstock::cluster {
namespace {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

// What the child tells through the pipe when it cannot become the program.
struct Failure {
  enum Step : int { kNone, kSetup, kFolder, kExec } step = kNone;
  int number = 0;  // errno
};

// All that the child needs, made before the fork: afterwards it may only call async-signal-safe functions, because another
// thread of the parent may have held any lock (malloc's, too) at the moment of the fork.
struct ChildPlan {
  std::string program;
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::vector<char*> argv_pointers;
  std::vector<char*> env_pointers;
  std::string working_folder;
  int log_fd = -1;
  int null_fd = -1;
  int failure_fd = -1;
  pid_t parent = 0;
  bool kill_with_parent = false;
  bool new_process_group = false;
  bool hold_stop_signals = false;
  bool bound = false;  // to `cores`
  cpu_set_t cores{};
};

[[noreturn]] void fail_in_child(const ChildPlan& plan, Failure::Step step) {
  const Failure failure{step, errno};
  [[maybe_unused]] const ssize_t written = ::write(plan.failure_fd, &failure, sizeof failure);
  ::_exit(127);
}

[[noreturn]] void become_program(const ChildPlan& plan) {
  if (plan.new_process_group && ::setpgid(0, 0) != 0) fail_in_child(plan, Failure::kSetup);
  if (plan.kill_with_parent) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail_in_child(plan, Failure::kSetup);
    if (::getppid() != plan.parent) ::_exit(127);  // the parent died before the line above
  }
  if (plan.bound && ::sched_setaffinity(0, sizeof plan.cores, &plan.cores) != 0) fail_in_child(plan, Failure::kSetup);
  if (::dup2(plan.null_fd, STDIN_FILENO) < 0) fail_in_child(plan, Failure::kSetup);
  if (plan.log_fd >= 0 && (::dup2(plan.log_fd, STDOUT_FILENO) < 0 || ::dup2(plan.log_fd, STDERR_FILENO) < 0))
    fail_in_child(plan, Failure::kSetup);
  // Files that someone opened without O_CLOEXEC (sockets of a library) must not live on in the child. Old kernels cannot: harmless.
  ::close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
  ::signal(SIGPIPE, SIG_DFL);
  sigset_t blocked;
  ::sigemptyset(&blocked);
  if (plan.hold_stop_signals) {
    ::sigaddset(&blocked, SIGINT);
    ::sigaddset(&blocked, SIGTERM);
  }
  ::sigprocmask(SIG_SETMASK, &blocked, nullptr);
  if (!plan.working_folder.empty() && ::chdir(plan.working_folder.c_str()) != 0) fail_in_child(plan, Failure::kFolder);
  ::execve(plan.program.c_str(), plan.argv_pointers.data(), plan.env_pointers.data());
  fail_in_child(plan, Failure::kExec);
}

// argv[0] as a path; looked up in PATH when it is a bare name.
Result<std::string> find_program(const std::string& name) {
  if (name.empty()) return error(Code::kInvalidArgument, "no program to start: argv is empty");
  if (name.find('/') != std::string::npos) return std::filesystem::absolute(name).string();
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "/usr/bin:/bin" : path;
  while (!rest.empty()) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    std::string candidate = fmt::format("{}/{}", rest.substr(0, colon), name);
    if (colon > 0 && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  return error(Code::kNotFound, "cannot start '{}': no such program in PATH", name);
}

// The inherited environment without `unset`, and with the overrides in place of variables of the same names; the last of several overrides counts.
std::vector<std::string> merged_environment(const std::vector<std::string>& unset, const std::vector<std::string>& overrides) {
  std::map<std::string, std::string> merged;
  const auto put = [&](const std::string& variable) { merged[variable.substr(0, variable.find('='))] = variable; };
  for (char** variable = environ; *variable != nullptr; ++variable) put(*variable);
  for (const std::string& name : unset) merged.erase(name);
  for (const std::string& variable : overrides) put(variable);
  std::vector<std::string> variables;
  for (auto& [name, variable] : merged) variables.push_back(std::move(variable));
  return variables;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

Error start_error(const ChildPlan& plan, const Failure& failure) {
  const char* reason = std::strerror(failure.number);
  if (failure.step == Failure::kFolder)
    return error(Code::kNotFound, "cannot start {} in folder {}: {}", plan.program, plan.working_folder, reason);
  if (failure.step != Failure::kExec) return error(Code::kUnavailable, "cannot start {}: {}", plan.program, reason);
  const Code code = failure.number == ENOENT ? Code::kNotFound : failure.number == EACCES ? Code::kPermissionDenied : Code::kUnavailable;
  return error(code, "cannot start {}: {}", plan.program, reason);
}

// Forks, and waits until the child has become the program or said why not.
Result<pid_t> fork_child(ChildPlan& plan) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0)
    return error(Code::kUnavailable, "cannot make a pipe to start {}: {}", plan.program, std::strerror(errno));
  FileDescriptor read_end(ends[0]), write_end(ends[1]);
  plan.failure_fd = write_end.get();
  plan.parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return error(Code::kUnavailable, "cannot make a process for {}: {}", plan.program, std::strerror(errno));
  if (pid == 0) become_program(plan);

  write_end.reset();
  Failure failure;
  ssize_t got = 0;
  do {  // ends when exec closes the pipe, or the child exits: no deadline needed
    got = ::read(read_end.get(), &failure, sizeof failure);
  } while (got < 0 && errno == EINTR);
  if (got == 0) return pid;
  ::waitpid(pid, nullptr, 0);
  return start_error(plan, failure);
}

void wait_for_exit(int pid_fd) {
  pollfd ended{.fd = pid_fd, .events = POLLIN, .revents = 0};
  while (::poll(&ended, 1, -1) < 0 && errno == EINTR) {
  }
}

struct Started {
  pid_t pid;
  int pid_fd;
};

// The keeper thread: starts the child and lives until it ends, see ChildProcess.
void keep(ChildPlan plan, std::promise<Result<Started>> started) {
  Result<pid_t> pid = fork_child(plan);
  if (!pid) return started.set_value(pid.error());
  const int pid_fd = static_cast<int>(::syscall(SYS_pidfd_open, *pid, 0));  // glibc 2.36 declares its wrapper without extern "C"
  if (pid_fd < 0) {
    const Error failed = error(Code::kUnavailable, "cannot watch process {} of {}: {}", *pid, plan.program, std::strerror(errno));
    ::kill(*pid, SIGKILL);
    ::waitpid(*pid, nullptr, 0);
    return started.set_value(failed);
  }
  const bool stay = plan.kill_with_parent;
  started.set_value(Started{*pid, pid_fd});
  if (stay) wait_for_exit(pid_fd);  // the object closes it only after joining this thread
}

std::string signal_name(int number) {
  const char* name = ::sigabbrev_np(number);
  return name == nullptr ? "unknown" : fmt::format("SIG{}", name);
}

}  // namespace

std::string ExitStatus::describe() const {
  return signalled ? fmt::format("killed by signal {} ({})", value, signal_name(value)) : fmt::format("exit code {}", value);
}

Result<std::unique_ptr<ChildProcess>> ChildProcess::spawn(ProcessOptions options) {
  Result<std::string> program = find_program(options.argv.empty() ? "" : options.argv.front());
  if (!program) return program.error();
  ChildPlan plan;
  plan.program = *program;
  plan.argv = std::move(options.argv);
  plan.env = merged_environment(options.unset, options.env);
  plan.working_folder = options.working_folder.string();
  plan.kill_with_parent = options.kill_with_parent;
  plan.new_process_group = options.new_process_group;
  plan.hold_stop_signals = options.hold_stop_signals;
  plan.bound = !options.cores.empty();
  CPU_ZERO(&plan.cores);
  for (const int core : options.cores) CPU_SET(static_cast<size_t>(core), &plan.cores);
  FileDescriptor log, null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (null.get() < 0) return error(Code::kUnavailable, "cannot open /dev/null: {}", std::strerror(errno));
  if (options.log_file) {
    log.reset(::open(options.log_file->c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (log.get() < 0) return error(Code::kDataLoss, "cannot open the log file {}: {}", options.log_file->string(), std::strerror(errno));
  }
  plan.log_fd = log.get();
  plan.null_fd = null.get();

  std::promise<Result<Started>> promise;
  std::future<Result<Started>> started = promise.get_future();
  std::thread keeper([plan = std::move(plan), promise = std::move(promise)]() mutable {
    plan.argv_pointers = pointers_to(plan.argv);  // here, as the strings do not move any more
    plan.env_pointers = pointers_to(plan.env);
    keep(std::move(plan), std::move(promise));
  });
  Result<Started> result = started.get();
  if (!result) {
    keeper.join();
    return result.error();
  }
  return std::unique_ptr<ChildProcess>(new ChildProcess(result->pid, result->pid_fd, options.new_process_group, std::move(keeper)));
}

ChildProcess::ChildProcess(pid_t pid, int pid_fd, bool own_group, std::thread keeper)
    : pid_(pid), pid_fd_(pid_fd), own_group_(own_group), keeper_(std::move(keeper)) {}

ChildProcess::~ChildProcess() {
  kill();
  wait_for_exit(pid_fd_);
  static_cast<void>(try_wait());
  keeper_.join();
  ::close(pid_fd_);
}

std::optional<ExitStatus> ChildProcess::try_wait() {
  MutexLock lock(mutex_);
  if (status_) return status_;
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return std::nullopt;
  // It has ended but still holds its number, so the group is certainly its own: what it left behind there ends with it.
  if (own_group_) ::kill(-pid_, SIGKILL);
  int raw = 0;
  ::waitpid(pid_, &raw, 0);
  status_ = WIFSIGNALED(raw) ? ExitStatus{true, WTERMSIG(raw)} : ExitStatus{false, WEXITSTATUS(raw)};
  return status_;
}

std::optional<ExitStatus> ChildProcess::wait(Deadline deadline) {
  for (;;) {
    if (auto status = try_wait()) return status;
    if (deadline.passed()) return std::nullopt;
    pollfd ended{.fd = pid_fd_, .events = POLLIN, .revents = 0};
    ::poll(&ended, 1, poll_timeout(deadline));
  }
}

void ChildProcess::signal(int number) {
  MutexLock lock(mutex_);
  if (!status_) ::kill(own_group_ ? -pid_ : pid_, number);  // not waited for yet, so the number is still its own
}

void ChildProcess::terminate() { signal(SIGTERM); }
void ChildProcess::kill() { signal(SIGKILL); }

}  // namespace penstock::cluster
