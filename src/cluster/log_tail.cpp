#include "cluster/log_tail.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

namespace penstock::cluster {
namespace {

constexpr size_t kTailBytes = 1500;
constexpr size_t kTailLines = 8;

}  // namespace

std::uintmax_t log_size(const std::filesystem::path& file) {
  std::error_code failed;
  const auto bytes = std::filesystem::file_size(file, failed);
  return failed ? 0 : bytes;
}

std::string log_tail(const std::filesystem::path& path, std::uintmax_t begin) {
  const std::uintmax_t end = log_size(path);
  if (end <= begin) return fmt::format("; it wrote nothing to {}", path.string());
  const std::uintmax_t bytes = std::min<std::uintmax_t>(end - begin, kTailBytes);
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(end - bytes));
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(std::move(line));
  if (lines.size() > kTailLines) lines.erase(lines.begin(), lines.end() - kTailLines);
  std::string text = fmt::format("; the last lines of {}:", path.string());
  for (const std::string& line : lines) text += "\n    " + line;
  return text;
}

}  // namespace penstock::cluster
