#pragma once
// Files of text or of JSON lines -> one document after another, in pieces small enough for memory.
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/train_config.h"

namespace penstock::data {

using config::TextFormat;

enum class InvalidUtf8 { kStop, kReplace, kKeep };  // an Error; U+FFFD; as it is (the byte tokenizer can)

struct SourceOptions {
  TextFormat format = TextFormat::kAuto;
  std::string separator = "%";    // text: a line of just this cuts documents; empty = one document a file
  std::string text_key = "text";  // JSON lines
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kStop;
  uint64_t max_document_bytes = uint64_t{64} << 20;
};

// A document as it stands in its file.
struct RawDocument {
  std::string content;  // text, or a line of JSON
  TextFormat format = TextFormat::kText;  // never kAuto
  std::shared_ptr<const std::string> file;
  int64_t line = 0;     // of its first byte, from 1

  [[nodiscard]] std::string where() const { return fmt::format("{}:{}", *file, line); }
};

// Every regular file of `paths` and of the folders among them, by name; of several links to one file the first.
// Errors: kNotFound, kInvalidArgument naming the path.
[[nodiscard]] Result<std::vector<std::string>> files_below(const std::vector<std::string>& paths);

// Reads files in order. A text file with a NUL in its first 64 KiB is no text and left out, and so are documents of nothing but white space.
//
// Threads: one.
class DocumentReader {
 public:
  DocumentReader(std::vector<std::string> files, const SourceOptions& options);
  ~DocumentReader();

  // nullopt at the end. Throws Error: kInvalidArgument FILE:LINE for a document larger than the limit; kDataLoss for a file that cannot be read.
  [[nodiscard]] std::optional<RawDocument> next();

  [[nodiscard]] uint64_t bytes_total() const { return bytes_total_; }
  [[nodiscard]] uint64_t bytes_read() const { return bytes_read_; }
  [[nodiscard]] int64_t files_left_out() const { return files_left_out_; }

 private:
  class LineReader;
  bool open_next_file();
  std::optional<RawDocument> next_of_file();
  std::optional<RawDocument> next_text();
  [[noreturn]] void too_large(int64_t line) const;

  const SourceOptions options_;
  std::deque<std::string> files_;
  std::unique_ptr<LineReader> lines_;  // of the file that is read
  std::shared_ptr<const std::string> file_;
  TextFormat format_ = TextFormat::kText;
  uint64_t bytes_total_ = 0, bytes_read_ = 0;
  int64_t files_left_out_ = 0;
};

// The text of a document of format kText or kJsonl; empty when there is nothing in it. Throws Error kInvalidArgument FILE:LINE: no JSON object, no
// text under the key, invalid UTF-8.
[[nodiscard]] std::string text_of(RawDocument document, const SourceOptions& options);

}  // namespace penstock::data
