#include "data/rows.h"

#include <algorithm>

namespace penstock::data {
namespace {

constexpr int64_t kScan = 1 << 20;  // tokens whose document starts are looked at in one go

}  // namespace

Rows::Rows(const TokenStream& stream, int64_t length, Packing packing) : stream_(stream), length_(length), packing_(packing) {
  if (packing == Packing::kWhole) {
    pack_documents();
    return;
  }
  const int64_t predicted = std::max<int64_t>(0, stream.size() - 1);
  full_ = predicted / length;
  count_ = (predicted + length - 1) / length;
}

// Next fit, in the stream's order: a row's documents lie next to each other there, and the row is told by where it begins.
void Rows::pack_documents() {
  int64_t begin = 0, end = 0;  // of the row so far, and of the last document taken
  const auto take = [&](int64_t document_end) {
    if (document_end - begin > length_ && end > begin) {
      begins_.push_back(begin);
      begin = end;
    }
    for (; document_end - begin > length_; begin += length_) begins_.push_back(begin);
    end = document_end;
  };
  std::vector<int64_t> starts;
  for (int64_t scanned = 0; scanned < stream_.size(); scanned += kScan) {
    starts.clear();
    stream_.document_starts(scanned, std::min(scanned + kScan, stream_.size()), starts);
    for (const int64_t start : starts) {
      if (start > 0) take(start);
    }
  }
  if (stream_.size() > 0) {
    take(stream_.size());
    begins_.push_back(begin);
  }
  count_ = full_ = static_cast<int64_t>(begins_.size());
  begins_.push_back(stream_.size());
}

void Rows::read(int64_t row, int64_t shift, const RowView& out) const {
  const bool whole = packing_ == Packing::kWhole;
  const int64_t size = stream_.size();
  const int64_t begin = row >= count_ ? size : whole ? begins_[static_cast<size_t>(row)] : std::min(size, row * length_ + shift);
  const int64_t end = row >= count_ ? size : whole ? begins_[static_cast<size_t>(row) + 1] : std::min(size, begin + length_);
  std::vector<uint32_t> tokens(static_cast<size_t>(std::min(end + 1, size) - begin));
  stream_.read(begin, tokens);
  std::vector<int64_t> starts;
  if (packing_ != Packing::kStream) stream_.document_starts(begin, begin + static_cast<int64_t>(tokens.size()), starts);

  auto next_start = starts.begin();
  int32_t document = 0;
  for (size_t t = 0; t < static_cast<size_t>(length_); ++t) {
    const int64_t at = begin + static_cast<int64_t>(t);
    const bool inside = at < end;
    if (inside && next_start != starts.end() && *next_start == at) {
      document = static_cast<int32_t>(t);
      ++next_start;
    }
    if (!inside && at == end) document = static_cast<int32_t>(t);  // padding sees itself only
    const bool next_is_another = next_start != starts.end() && *next_start == at + 1;
    const bool predicts = inside && t + 1 < tokens.size() && !next_is_another && (tokens[t + 1] & kNoTarget) == 0;
    out.inputs[t] = inside ? static_cast<int64_t>(tokens[t] & ~kNoTarget) : 0;
    out.targets[t] = predicts ? static_cast<int64_t>(tokens[t + 1]) : -1;
    if (!out.starts.empty()) out.starts[t] = document;
  }
}

}  // namespace penstock::data
