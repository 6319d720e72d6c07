#include "comm/process_identity.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <sstream>
#include <vector>

#include "base/file.h"

namespace penstock::comm {
namespace {

constexpr size_t kMaxProcFileBytes = 64 << 10;

struct ProcStat {
  char state = '?';
  uint64_t start_ticks = 0;
};

// Fields 3 and 22 of /proc/PID/stat (man 5 proc), counted from behind the program's name, which may hold anything.
std::optional<ProcStat> read_stat(int64_t pid) {
  const Result<std::string> text = read_file(fmt::format("/proc/{}/stat", pid), kMaxProcFileBytes);
  if (!text.ok()) return std::nullopt;
  const size_t name_end = text.value().rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream rest(text.value().substr(name_end + 1));
  ProcStat stat;
  std::string skipped;
  if (!(rest >> stat.state)) return std::nullopt;
  for (int field = 4; field < 22; ++field) rest >> skipped;
  return rest >> stat.start_ticks ? std::optional(stat) : std::nullopt;
}

template <typename Number>
bool parse(std::string_view text, Number& number) {
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  return failed == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string ProcessIdentity::to_text() const { return fmt::format("{}\t{}\t{}\t{}", host, pid_space, pid, start_ticks); }

std::optional<ProcessIdentity> ProcessIdentity::from_text(std::string_view text) {
  std::array<std::string_view, 4> fields;
  for (size_t i = 0; i < fields.size(); ++i) {
    const size_t tab = text.find('\t');
    if ((tab == std::string_view::npos) != (i + 1 == fields.size())) return std::nullopt;
    fields[i] = text.substr(0, tab);
    text.remove_prefix(tab == std::string_view::npos ? text.size() : tab + 1);
  }
  ProcessIdentity process{.host = std::string(fields[0]), .pid_space = std::string(fields[1])};
  if (!parse(fields[2], process.pid) || !parse(fields[3], process.start_ticks) || process.pid <= 0) return std::nullopt;
  return process;
}

ProcessIdentity this_process() {
  ProcessIdentity process;
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) == 0) process.host = host.data();
  std::error_code failed;
  const std::string container = std::filesystem::read_symlink("/proc/self/ns/pid", failed).string();
  const Result<std::string> boot = read_file("/proc/sys/kernel/random/boot_id", kMaxProcFileBytes);
  if (!failed && boot.ok()) process.pid_space = boot.value().substr(0, boot.value().find('\n')) + " " + container;
  process.pid = ::getpid();
  if (const auto stat = read_stat(process.pid)) process.start_ticks = stat->start_ticks;
  return process;
}

bool has_ended(const ProcessIdentity& process, const ProcessIdentity& self) {
  if (process.pid_space.empty() || process.pid_space != self.pid_space) return false;
  if (::kill(static_cast<pid_t>(process.pid), 0) != 0 && errno == ESRCH) return true;
  const auto stat = read_stat(process.pid);
  if (!stat) return false;  // hidden from us, or ended just now: the next call tells
  if (stat->state == 'Z' || stat->state == 'X') return true;
  return process.start_ticks != 0 && stat->start_ticks != process.start_ticks;
}

}  // namespace penstock::comm
