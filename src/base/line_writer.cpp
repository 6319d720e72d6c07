#include "base/line_writer.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/rotating_file_sink.h>

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "base/log.h"

namespace penstock {
namespace {

constexpr seconds kBetweenWarnings{60};

}  // namespace

struct LineWriter::File {
  std::filesystem::path path;
  std::shared_ptr<spdlog::sinks::rotating_file_sink_st> sink;  // with path: the writer's thread's; null: not open
  std::string waiting;                                         // guarded by the writer's mutex, as is the next one
  uint64_t num_waiting = 0;
};

LineWriter::LineWriter(LineWriterOptions options) : options_(options) {
  thread_ = std::thread([this] { run(); });
}

LineWriter::~LineWriter() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

size_t LineWriter::open(const std::filesystem::path& file) {
  auto made = std::make_unique<File>();
  made->path = file;
  MutexLock lock(mutex_);
  files_.push_back(std::move(made));
  return files_.size() - 1;
}

void LineWriter::write(size_t file, std::string_view line) {
  MutexLock lock(mutex_);
  File& target = *files_.at(file);
  if (target.waiting.size() + line.size() >= options_.max_waiting_bytes) {
    ++lost_;
    return;
  }
  target.waiting += line;
  target.waiting += '\n';
  ++target.num_waiting;
  if (!std::exchange(pending_, true)) changed_.notify_all();
}

uint64_t LineWriter::lost() const {
  MutexLock lock(mutex_);
  return lost_;
}

void LineWriter::run() {
  struct Batch {
    File* file;
    std::string text;
    uint64_t lines;
  };
  for (bool last = false; !last;) {
    std::vector<Batch> batches;
    {
      MutexLock lock(mutex_);
      while (!pending_ && !stopping_) changed_.wait(mutex_, Deadline::never());
      last = stopping_;
      pending_ = false;
      for (const auto& file : files_) {
        if (file->num_waiting > 0) batches.push_back({file.get(), std::exchange(file->waiting, {}), std::exchange(file->num_waiting, 0)});
      }
    }
    for (const Batch& batch : batches) write_batch(*batch.file, batch.text, batch.lines);
  }
}

void LineWriter::write_batch(File& file, const std::string& text, uint64_t lines) {
  try {
    if (!file.sink) {
      file.sink = std::make_shared<spdlog::sinks::rotating_file_sink_st>(file.path.string(), options_.max_file_bytes, options_.kept_files);
      file.sink->set_formatter(std::make_unique<spdlog::pattern_formatter>("%v", spdlog::pattern_time_type::local, ""));
    }
    file.sink->log(spdlog::details::log_msg("", spdlog::level::info, text));
    file.sink->flush();
  } catch (const std::exception& failure) {
    {
      MutexLock lock(mutex_);
      lost_ += lines;
    }
    if (Clock::now() < next_warning_) return;
    next_warning_ = Clock::now() + kBetweenWarnings;
    // Not into a log file: stderr has it in any case.
    spdlog::warn("log file {}: {}; its lines are lost until it can be written", file.path.string(), failure.what());
  }
}

}  // namespace penstock
