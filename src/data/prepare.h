#pragma once
// Text -> a folder of token shards.
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/document_reader.h"
#include "data/token_folder.h"

namespace penstock::data {

struct PrepareOptions {
  std::vector<std::string> inputs;             // files and folders
  std::vector<std::string> validation_inputs;  // these are held out whole; then nothing of `inputs` is
  std::filesystem::path output;                // must not exist, unless `overwrite`; the folder around it must
  std::filesystem::path tokenizer;             // a model directory; empty = bytes
  SourceOptions source;
  double validation_fraction = 0.1;            // of the documents
  uint64_t shard_bytes = uint64_t{256} << 20;  // a shard is closed when it has reached this size
  int threads = 1;
  bool overwrite = false;                      // a folder of prepared data is replaced when the new one is complete
  std::function<void(double fraction, const std::string& text)> progress = {};
  std::function<bool()> stopped = {};          // asked now and then; true ends the work with Error kCancelled
};

struct PrepareResult {
  TokenFolder folder;
  int64_t files = 0, files_left_out = 0;  // these are no text
  int64_t empty_documents = 0;            // left out
};

// Whatever the number of threads, the same inputs give the same bytes. Documents are held out evenly: of the first n, round(n · fraction).
// The output is written as OUTPUT.writing and renamed when all is on disk; on failure nothing is left.
//
// Threads:  `threads` of its own (docs/threads.md) that turn text into tokens; the caller reads and writes. A few MiB, or documents, per thread
//           are in memory at a time.
// Blocking: for the whole work.
// Errors:   throws Error. kInvalidArgument FILE:LINE (a document that is not what its format says, or too large), kNotFound, kAlreadyExists (the
//           output), kFailedPrecondition (another program is writing it), kDataLoss (a disk that is full, a folder that cannot be written),
//           kCancelled. Of several bad documents the first is named.
[[nodiscard]] PrepareResult prepare(const PrepareOptions& options);

}  // namespace penstock::data
