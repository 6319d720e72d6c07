#include "train/text_corpus.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <string_view>

#include "base/file.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = size_t{1} << 32;
constexpr int64_t kMaxCorpusBytes = int64_t{1} << 32;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == ' ')) text.remove_suffix(1);
  while (!text.empty() && (text.front() == '\n' || text.front() == '\r')) text.remove_prefix(1);
  return text;
}

// Calls `take` with each document of `text`.
template <typename F>
void for_each_document(std::string_view text, const std::string& separator, F take) {
  if (separator.empty()) {
    if (!trimmed(text).empty()) take(trimmed(text));
    return;
  }
  size_t document = 0;
  for (size_t line = 0; line < text.size();) {
    const size_t end = std::min(text.find('\n', line), text.size());
    std::string_view content = text.substr(line, end - line);
    if (!content.empty() && content.back() == '\r') content.remove_suffix(1);
    if (content == separator) {
      if (const auto found = trimmed(text.substr(document, line - document)); !found.empty()) take(found);
      document = end + 1;
    }
    line = end + 1;
  }
  if (document < text.size()) {
    if (const auto found = trimmed(text.substr(document)); !found.empty()) take(found);
  }
}

void append(TokenStream& stream, std::string_view document, const text::Tokenizer& tokenizer) {
  const auto ids = tokenizer.encode(document);
  stream.ids.insert(stream.ids.end(), ids.begin(), ids.end());
  if (tokenizer.end_id() >= 0) stream.ids.push_back(tokenizer.end_id());
  stream.bytes += static_cast<int64_t>(document.size());
  ++stream.documents;
}

// Splits documents so that of the first n, round(n · fraction) are held out, for every n.
class HoldOut {
 public:
  explicit HoldOut(double fraction) : fraction_(fraction) {}
  bool next() {
    ++seen_;
    if (std::floor(static_cast<double>(seen_) * fraction_ + 0.5) <= static_cast<double>(held_)) return false;
    ++held_;
    return true;
  }

 private:
  double fraction_;
  int64_t seen_ = 0, held_ = 0;
};

}  // namespace

Result<std::vector<std::string>> corpus_files(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  std::set<fs::path> seen;  // by canonical path: fortunes ships every file twice, once as a link
  for (const std::string& path : paths) {
    std::error_code failed;
    std::vector<fs::path> found;
    if (fs::is_directory(path, failed)) {
      for (auto it = fs::recursive_directory_iterator(path, failed); !failed && it != fs::recursive_directory_iterator(); it.increment(failed)) {
        if (it->is_regular_file(failed)) found.push_back(it->path());
      }
      if (failed) return error(Code::kInvalidArgument, "data.path: cannot read folder {}: {}", path, failed.message());
    } else if (fs::is_regular_file(path, failed)) {
      found.emplace_back(path);
    } else {
      return error(Code::kNotFound, "data.path: {} does not exist; expected a text file or a folder of text files", path);
    }
    std::sort(found.begin(), found.end());
    for (const fs::path& file : found) {
      const fs::path canonical = fs::canonical(file, failed);
      if (!failed && seen.insert(canonical).second) files.push_back(canonical.string());
    }
  }
  return files;
}

Result<TextCorpus> load_text_corpus(const config::TrainDataConfig& data, const text::Tokenizer& tokenizer) {
  auto files = corpus_files(data.paths);
  if (!files) return files.error();
  TextCorpus corpus;
  HoldOut hold_out(data.validation_fraction);
  int64_t total = 0;
  for (const std::string& file : *files) {
    auto text = read_file(file, kMaxFileBytes);
    if (!text) return text.error();
    if (text->find('\0') != std::string::npos) continue;  // not text: fortune's .dat index files, pictures
    total += static_cast<int64_t>(text->size());
    if (total > kMaxCorpusBytes) return error(Code::kInvalidArgument, "data.path: more than {} bytes of text, at {}", kMaxCorpusBytes, file);
    for_each_document(*text, data.separator,
                      [&](std::string_view document) { append(hold_out.next() ? corpus.validation : corpus.train, document, tokenizer); });
  }
  if (corpus.train.ids.empty()) return error(Code::kInvalidArgument, "data.path: no text found in {} files", files->size());
  return corpus;
}

}  // namespace penstock::train
