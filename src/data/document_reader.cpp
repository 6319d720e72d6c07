#include "data/document_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/utf8.h"
#include "text/json_input.h"
#include "text/utf8_stream.h"

namespace penstock::data {

namespace fs = std::filesystem;

namespace {

constexpr size_t kBlockBytes = 1 << 20;
constexpr size_t kProbeBytes = 1 << 16;
constexpr int kJsonDepth = 64;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  while (!text.empty() && (text.front() == '\n' || text.front() == '\r')) text.remove_prefix(1);
  return text;
}

std::string_view without_line_end(std::string_view line) {
  if (line.ends_with('\n')) line.remove_suffix(1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

TextFormat format_of(const std::string& file, TextFormat asked) {
  if (asked != TextFormat::kAuto) return asked;
  const fs::path extension = fs::path(file).extension();
  return extension == ".jsonl" || extension == ".ndjson" ? TextFormat::kJsonl : TextFormat::kText;
}

}  // namespace

// A file, line by line.
class DocumentReader::LineReader {
 public:
  LineReader(const std::string& file, uint64_t& bytes_read) : file_(file), bytes_read_(bytes_read), fd_(::open(file.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) throw error(Code::kDataLoss, "cannot open {}: {}", file, std::strerror(errno));
  }
  ~LineReader() { ::close(fd_); }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // With its line end; nullopt at the end of the file, or when the line has more than `limit` bytes: then over_limit(). Valid until the next call.
  std::optional<std::string_view> next(uint64_t limit) {
    size_t searched = at_;
    for (;;) {
      const size_t end = block_.find('\n', searched);
      const size_t length = (end == std::string::npos ? block_.size() : end + 1) - at_;
      over_limit_ = length > limit;
      if (over_limit_) return std::nullopt;
      if (end != std::string::npos) return take(length);
      searched = block_.size() - at_;
      block_.erase(0, at_);
      at_ = 0;
      if (!fill()) return block_.empty() ? std::nullopt : std::optional(take(block_.size()));
    }
  }
  [[nodiscard]] bool over_limit() const { return over_limit_; }
  [[nodiscard]] int64_t line() const { return line_; }  // of the line that next() gave last
  // Looks at the first bytes.
  [[nodiscard]] bool is_text() {
    while (block_.size() < kProbeBytes && fill()) {
    }
    return block_.substr(0, kProbeBytes).find('\0') == std::string::npos;
  }

 private:
  std::string_view take(size_t length) {
    const std::string_view line = std::string_view(block_).substr(at_, length);
    at_ += length;
    ++line_;
    return line;
  }
  bool fill() {
    const size_t before = block_.size();
    block_.resize(before + kBlockBytes);
    ssize_t got = -1;
    do {
      got = ::read(fd_, block_.data() + before, kBlockBytes);
    } while (got < 0 && errno == EINTR);
    if (got < 0) throw error(Code::kDataLoss, "cannot read {}: {}", file_, std::strerror(errno));
    block_.resize(before + static_cast<size_t>(got));
    bytes_read_ += static_cast<uint64_t>(got);
    return got > 0;
  }

  const std::string file_;
  uint64_t& bytes_read_;
  int fd_;
  std::string block_;
  size_t at_ = 0;
  int64_t line_ = 0;
  bool over_limit_ = false;
};

Result<std::vector<std::string>> files_below(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  std::set<fs::path> seen;  // by canonical path: fortunes ships every file twice, once as a link
  for (const std::string& path : paths) {
    std::error_code failed;
    std::vector<fs::path> found;
    if (fs::is_directory(path, failed)) {
      for (auto it = fs::recursive_directory_iterator(path, failed); !failed && it != fs::recursive_directory_iterator(); it.increment(failed)) {
        if (it->is_regular_file(failed)) found.push_back(it->path());
      }
      if (failed) return error(Code::kInvalidArgument, "cannot read folder {}: {}", path, failed.message());
    } else if (fs::is_regular_file(path, failed)) {
      found.emplace_back(path);
    } else {
      return error(Code::kNotFound, "{} {}; expected a file or a folder", path, fs::exists(path, failed) ? "is a pipe or a device" : "does not exist");
    }
    std::sort(found.begin(), found.end());
    for (const fs::path& file : found) {
      const fs::path canonical = fs::canonical(file, failed);
      if (!failed && seen.insert(canonical).second) files.push_back(canonical.string());
    }
  }
  return files;
}

DocumentReader::DocumentReader(std::vector<std::string> files, const SourceOptions& options) : options_(options), files_(files.begin(), files.end()) {
  for (const std::string& file : files_) {
    std::error_code failed;
    const auto bytes = fs::file_size(file, failed);
    if (!failed) bytes_total_ += bytes;
  }
}

DocumentReader::~DocumentReader() = default;

bool DocumentReader::open_next_file() {
  while (!files_.empty()) {
    file_ = std::make_shared<const std::string>(std::move(files_.front()));
    files_.pop_front();
    format_ = format_of(*file_, options_.format);
    lines_ = std::make_unique<LineReader>(*file_, bytes_read_);
    if (format_ != TextFormat::kText || lines_->is_text()) return true;
    ++files_left_out_;  // fortune's .dat index files, pictures
    std::error_code failed;
    const auto bytes = fs::file_size(*file_, failed);
    if (!failed) bytes_read_ += bytes - std::min<uint64_t>(bytes, kBlockBytes);
  }
  lines_.reset();
  return false;
}

std::optional<RawDocument> DocumentReader::next() {
  while (lines_ != nullptr || open_next_file()) {
    if (auto document = next_of_file()) return document;
    lines_.reset();
  }
  return std::nullopt;
}

void DocumentReader::too_large(int64_t line) const {
  throw error(Code::kInvalidArgument, "{}:{}: a document of more than {} bytes; cut it, name another separator, or raise the limit", *file_, line,
              options_.max_document_bytes);
}

std::optional<RawDocument> DocumentReader::next_of_file() {
  if (format_ == TextFormat::kText) return next_text();
  while (const auto line = lines_->next(options_.max_document_bytes)) {
    if (const auto content = trimmed(*line); !content.empty()) return RawDocument{std::string(content), format_, file_, lines_->line()};
  }
  if (lines_->over_limit()) too_large(lines_->line() + 1);
  return std::nullopt;
}

std::optional<RawDocument> DocumentReader::next_text() {
  std::string content;
  int64_t first_line = 0;
  for (;;) {
    const auto line = lines_->next(options_.max_document_bytes - content.size());
    if (lines_->over_limit()) too_large(first_line > 0 ? first_line : lines_->line() + 1);
    const bool cut = line && !options_.separator.empty() && without_line_end(*line) == options_.separator;
    if (line && !cut) {
      if (content.empty() && trimmed(*line).empty()) continue;
      if (content.empty()) first_line = lines_->line();
      content += *line;
      continue;
    }
    if (const auto found = trimmed(content); !found.empty()) return RawDocument{std::string(found), format_, file_, first_line};
    if (!line) return std::nullopt;
    content.clear();
  }
}

namespace {

std::string json_text(const RawDocument& document, const SourceOptions& options) {
  const auto parsed = text::parse_json(document.content, document.where(), Code::kInvalidArgument, {.depth = kJsonDepth});
  if (!parsed) throw parsed.error();
  const nlohmann::json& object = parsed.value();
  if (!object.is_object()) throw error(Code::kInvalidArgument, "{}: expected a JSON object, found {}", document.where(), text::shown(object));
  const auto value = object.find(options.text_key);
  if (value == object.end()) throw error(Code::kInvalidArgument, "{}: expected a key '{}' with the text, found none", document.where(), options.text_key);
  if (!value->is_string()) throw error(Code::kInvalidArgument, "{}: key '{}': expected a text, found {}", document.where(), options.text_key, text::shown(*value));
  return value->get<std::string>();
}

std::string replaced(std::string_view bytes) {
  text::Utf8Stream stream;
  std::string text = stream.feed(bytes);
  return text + stream.flush();
}

}  // namespace

std::string text_of(RawDocument document, const SourceOptions& options) {
  const size_t wrong = options.invalid_utf8 == InvalidUtf8::kKeep ? std::string::npos : find_invalid_utf8(document.content);
  if (wrong != std::string::npos) {
    if (options.invalid_utf8 == InvalidUtf8::kStop) {
      const auto line = document.line + std::count(document.content.begin(), document.content.begin() + static_cast<std::ptrdiff_t>(wrong), '\n');
      throw error(Code::kInvalidArgument, "{}:{}: expected UTF-8, found an invalid byte 0x{:02x}; convert the file, or let invalid bytes be replaced", *document.file,
                  line, static_cast<unsigned char>(document.content[wrong]));
    }
    document.content = replaced(document.content);
  }
  return document.format == TextFormat::kText ? std::move(document.content) : json_text(document, options);
}

}  // namespace penstock::data
