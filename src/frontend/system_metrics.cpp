#include "frontend/system_metrics.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <exception>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/temp_dir.h"
#include "cluster/process.h"

namespace penstock::frontend {
namespace {

constexpr size_t kProcFileLimit = 1 << 20;
constexpr seconds kGpuTimeout{5};

std::string_view take_line(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(text.size(), line.size() + 1));
  return line;
}

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  return first == std::string_view::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  text = trimmed(text);
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Of files in /proc, which say that they are empty, so that base/file.h cannot read them.
std::string read_proc(const char* path) {
  std::string text;
  std::FILE* file = std::fopen(path, "re");
  if (!file) return text;
  char buffer[4096];
  for (size_t count = 0; text.size() < kProcFileLimit && (count = std::fread(buffer, 1, sizeof buffer, file)) > 0;) text.append(buffer, count);
  (void)std::fclose(file);
  return text;
}

std::optional<DiskUse> disk_use(const char* path) {
  struct statvfs disk {};
  if (::statvfs(path, &disk) != 0 || disk.f_blocks == 0) return std::nullopt;
  constexpr double kGiB = 1 << 30;
  const auto block = static_cast<double>(disk.f_frsize);
  const double used = static_cast<double>(disk.f_blocks - disk.f_bfree) * block, available = static_cast<double>(disk.f_bavail) * block;
  return DiskUse{used / kGiB, available / kGiB, used + available > 0 ? 100 * used / (used + available) : 0};
}

}  // namespace

std::optional<CpuTimes> parse_cpu_times(std::string_view text) {
  std::string_view line = take_line(text);
  if (!line.starts_with("cpu ")) return std::nullopt;
  line.remove_prefix(4);
  CpuTimes times;
  // user, nice, system, idle, iowait, irq, softirq, steal; guests, which follow, are in user already.
  for (int field = 0; field < 8; ++field) {
    line = line.substr(std::min(line.size(), line.find_first_not_of(' ')));
    const std::string_view word = line.substr(0, line.find(' '));
    const auto ticks = parse_number<uint64_t>(word);
    if (!ticks) return field >= 4 ? std::optional(times) : std::nullopt;
    line.remove_prefix(word.size());
    times.total += *ticks;
    if (field != 3 && field != 4) times.busy += *ticks;
  }
  return times;
}

std::optional<MemoryUse> parse_memory(std::string_view text) {
  std::optional<double> total, available;  // KiB
  while (!text.empty()) {
    const std::string_view line = take_line(text);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string_view value = trimmed(line.substr(colon + 1));
    if (value.ends_with(" kB")) value.remove_suffix(3);
    if (line.starts_with("MemTotal:")) total = parse_number<double>(value);
    if (line.starts_with("MemAvailable:")) available = parse_number<double>(value);
  }
  if (!total || !available || *total <= 0) return std::nullopt;
  return MemoryUse{(*total - *available) / 1024, *available / 1024, 100 * (*total - *available) / *total};
}

std::vector<GpuUse> parse_nvidia_smi(std::string_view text) {
  std::vector<GpuUse> gpus;
  while (!text.empty()) {
    std::string_view line = take_line(text);
    std::vector<std::optional<double>> numbers;
    for (bool more = true; more;) {
      const size_t comma = line.find(',');
      numbers.push_back(parse_number<double>(line.substr(0, comma)));
      more = comma != std::string_view::npos;
      if (more) line.remove_prefix(comma + 1);
    }
    if (numbers.size() != 4 || !numbers[0]) continue;
    GpuUse gpu;
    gpu.device = fmt::format("{:.0f}", *numbers[0]);
    gpu.percent = numbers[1].value_or(0);  // "[N/A]" on some cards
    gpu.memory_used_mb = numbers[2].value_or(0);
    if (numbers[3].value_or(0) > 0) gpu.memory_percent = 100 * gpu.memory_used_mb / *numbers[3];
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

SystemSampler::SystemSampler(seconds interval, std::function<void(const SystemSample&)> take) : interval_(interval), take_(std::move(take)) {
  thread_ = std::thread([this] { run(); });
}

SystemSampler::~SystemSampler() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void SystemSampler::run() {
  for (;;) {
    take_(sample());
    MutexLock lock(mutex_);
    const Deadline next = Deadline::after(interval_);
    while (!stopping_ && !next.passed()) (void)changed_.wait(mutex_, next);
    if (stopping_) return;
  }
}

SystemSample SystemSampler::sample() {
  SystemSample sample;
  if (const auto now = parse_cpu_times(read_proc("/proc/stat"))) {
    const CpuTimes before = last_cpu_.value_or(CpuTimes{});  // at first: since the machine started
    if (now->total > before.total && now->busy >= before.busy) {
      sample.cpu_percent = 100 * static_cast<double>(now->busy - before.busy) / static_cast<double>(now->total - before.total);
    }
    last_cpu_ = now;
  }
  sample.memory = parse_memory(read_proc("/proc/meminfo"));
  sample.disk = disk_use("/");
  if (has_gpus_) sample.gpus = ask_gpus();
  return sample;
}

std::vector<GpuUse> SystemSampler::ask_gpus() {
  try {
    const TempDir folder;
    cluster::ProcessOptions options;
    options.argv = {"nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"};
    options.log_file = folder.path() / "output";
    auto process = cluster::ChildProcess::spawn(options);
    has_gpus_ = process.ok();
    if (!process) return {};
    const auto status = (*process)->wait(Deadline::after(kGpuTimeout));
    if (!status) {
      spdlog::warn("metrics: nvidia-smi has not answered within {} s; the GPUs' figures stay as they were", kGpuTimeout.count());
      return {};
    }
    if (!status->success()) return {};
    auto text = read_file(*options.log_file, kProcFileLimit);
    return text ? parse_nvidia_smi(*text) : std::vector<GpuUse>();
  } catch (const std::exception& failure) {  // no temporary folder: a full disk must not stop the server
    spdlog::warn("metrics: cannot ask nvidia-smi: {}", failure.what());
    return {};
  }
}

}  // namespace penstock::frontend
