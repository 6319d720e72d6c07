#pragma once
// Which part of a stream each row of a batch is, and what is predicted in it.
#include <cstdint>
#include <span>
#include <vector>

#include "data/token_stream.h"

namespace penstock::data {

// kStream:    rows are windows of the stream; what comes before in the row is seen, other documents too.
// kDocument:  the same windows, but nothing is seen or predicted across the start of a document.
// kWhole:     rows are documents that fit whole, one behind the other, apart as above; what is left of a row has no targets. A document that is longer
//             than a row is cut.
using Packing = config::DataPacking;

// A row of T positions, filled in place.
struct RowView {
  std::span<int64_t> inputs;   // [T] token ids; 0 behind the end
  std::span<int64_t> targets;  // [T] the next token; −1 where none is predicted: behind the end, across documents, where the next token is context
  std::span<int32_t> starts;   // [T] where in the row the document of each position begins; empty with kStream
};

// Of a stream cut into rows, every token is the target of exactly one position, but for the first of a document (kStream: of the stream) and context.
//
// Threads: const and shared freely.
class Rows {
 public:
  // kWhole reads all document starts and keeps 8 bytes a row; otherwise nothing is read. REQUIRES: length >= 1; the stream outlives it.
  Rows(const TokenStream& stream, int64_t length, Packing packing);

  [[nodiscard]] int64_t count() const { return count_; }
  // Those without positions to spare at the end; with kWhole all.
  [[nodiscard]] int64_t full() const { return full_; }
  [[nodiscard]] int64_t length() const { return length_; }
  [[nodiscard]] Packing packing() const { return packing_; }
  // No target of a full row is −1.
  [[nodiscard]] bool every_target_counts() const { return packing_ == Packing::kStream && !stream_.has_context(); }

  // `shift`: how many tokens further on windows begin; 0 with kWhole. A row past the end has no targets. Throws what the stream throws.
  void read(int64_t row, int64_t shift, const RowView& out) const;

 private:
  void pack_documents();

  const TokenStream& stream_;
  const int64_t length_;
  const Packing packing_;
  int64_t count_ = 0, full_ = 0;
  std::vector<int64_t> begins_;  // kWhole: the first token of each row, and the stream's size
};

}  // namespace penstock::data
