#include "base/host_memory.h"

#include <algorithm>
#include <charconv>
#include <string>

#include "base/file.h"

namespace penstock {
namespace {

constexpr size_t kFileLimit = 1 << 20;

std::string content(const std::filesystem::path& file) {
  const auto text = read_file(file, kFileLimit);
  return text ? text.value() : "";
}

// The number after `key`; nullopt: there is none ("max").
std::optional<int64_t> number_after(std::string_view text, std::string_view key) {
  const size_t at = text.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  text.remove_prefix(std::min(text.size(), text.find_first_not_of(' ', at + key.size())));
  int64_t number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failed != std::errc()) return std::nullopt;
  return number;
}

}  // namespace

std::optional<int64_t> available_memory() { return available_memory("/"); }

std::optional<int64_t> available_memory(const std::filesystem::path& root) {
  auto available = number_after(content(root / "proc/meminfo"), "MemAvailable:");
  if (available) *available *= 1024;
  // "0::/the/group"; each group on the way to it has limits of its own.
  const std::string groups = content(root / "proc/self/cgroup");
  const size_t at = groups.find("0::/");
  if (at == std::string::npos) return available;
  std::filesystem::path group = groups.substr(at + 4, groups.find('\n', at) - at - 4);
  for (const std::filesystem::path top = root / "sys/fs/cgroup";; group = group.parent_path()) {
    const auto limit = number_after(content(top / group / "memory.max"), ""), used = number_after(content(top / group / "memory.current"), "");
    const auto cache = number_after(content(top / group / "memory.stat"), "inactive_file");  // is given back when memory is short
    if (limit && used) {
      const int64_t left = std::max<int64_t>(0, *limit - *used + std::min(*used, cache.value_or(0)));
      available = std::min(available.value_or(left), left);
    }
    if (group.empty()) return available;
  }
}

}  // namespace penstock
