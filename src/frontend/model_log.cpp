#include "frontend/model_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "cluster/log_tail.h"
#include "frontend/log_files.h"
#include "frontend/model_spec.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

constexpr milliseconds kLookEvery{500};
constexpr std::uintmax_t kMaxBytes = 4 << 20;  // of one file in one look
constexpr size_t kMaxLine = 16 << 10;
constexpr int kFirstPort = 9000;  // as TorchServe names its workers

// Calls `found(file, worker)` for the log of every rank.
void for_each_rank_log(const fs::path& folder, const std::function<void(const fs::path&, const std::string&)>& found) {
  std::error_code failed;
  for (fs::directory_iterator group(folder, failed), end; !failed && group != end; group.increment(failed)) {
    const std::string worker = worker_of_folder(group->path().filename().string());
    std::error_code none;
    if (worker.empty() || !group->is_directory(none)) continue;
    for (fs::directory_iterator file(group->path(), none); !none && file != end; file.increment(none)) {
      const std::string name = file->path().filename().string();
      if (name.starts_with("rank-") && name.ends_with(".log")) found(file->path(), worker);
    }
  }
}

}  // namespace

std::string worker_of_folder(std::string_view folder) {
  const size_t dash = folder.rfind('-');
  if (dash == std::string_view::npos || dash == 0) return "";
  int group = 0;
  const char* end = folder.data() + folder.size();
  const auto [parsed, wrong] = std::from_chars(folder.data() + dash + 1, end, group);
  if (wrong != std::errc() || parsed != end || group < 0) return "";
  const std::string_view model = folder.substr(0, dash);
  const size_t colon = model.find(':');
  const std::string_view version = colon == std::string_view::npos ? std::string_view(kDefaultVersion) : model.substr(colon + 1);
  return fmt::format("W-{}-{}_{}", kFirstPort + group, model.substr(0, colon), version);
}

ModelLog::ModelLog(fs::path folder, std::function<void(std::string_view)> write) : folder_(std::move(folder)), write_(std::move(write)) {
  for_each_rank_log(folder_, [this](const fs::path& file, const std::string&) { files_[file].read = cluster::log_size(file); });
  thread_ = std::thread([this] { run(); });
}

ModelLog::~ModelLog() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
  look();
}

void ModelLog::run() {
  for (;;) {
    {
      MutexLock lock(mutex_);
      const Deadline next = Deadline::after(kLookEvery);
      while (!stopping_ && !next.passed()) (void)changed_.wait(mutex_, next);
      if (stopping_) return;
    }
    look();
  }
}

void ModelLog::look() {
  for_each_rank_log(folder_, [this](const fs::path& file, const std::string& worker) { follow(file, worker, files_[file]); });
}

void ModelLog::follow(const fs::path& path, const std::string& worker, Followed& state) const {
  const std::uintmax_t size = cluster::log_size(path);
  if (size < state.read) state = {};  // somebody has emptied it
  if (size == state.read) return;
  const std::uintmax_t skipped = size - state.read > kMaxBytes ? size - state.read - kMaxBytes : 0;
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(state.read + skipped));
  std::string text(static_cast<size_t>(size - state.read - skipped), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  state.read += skipped + text.size();
  if (skipped > 0) write_line(worker, fmt::format("({} bytes are only in {})", skipped, path.string()));
  text.insert(0, std::exchange(state.rest, ""));
  size_t begin = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    write_line(worker, std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
  }
  state.rest = text.substr(begin);
  if (state.rest.size() > kMaxLine) write_line(worker, std::exchange(state.rest, ""));
}

void ModelLog::write_line(const std::string& worker, std::string_view line) const {
  do {
    write_(fmt::format("{} [INFO ] {}-stdout MODEL_LOG - {}", log_time(std::chrono::system_clock::now()), worker, line.substr(0, kMaxLine)));
    line.remove_prefix(std::min(line.size(), kMaxLine));
  } while (!line.empty());
}

}  // namespace penstock::frontend
