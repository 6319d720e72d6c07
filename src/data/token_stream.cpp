#include "data/token_stream.h"

#include <algorithm>

namespace penstock::data {
namespace {

constexpr uint64_t kStartsAtOnce = 1 << 12;

// The first document of a shard that starts at `token` or behind it.
uint64_t first_document_from(const Shard& shard, uint64_t token) {
  uint64_t low = 0, high = shard.header().documents;
  while (low < high) {
    const uint64_t middle = (low + high) / 2;
    uint64_t start = 0;
    shard.read_starts(middle, {&start, 1});
    if (start < token) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace

void MemoryStream::add(const EncodedDocument& document) {
  starts_.push_back(size_);
  tokens_.insert(tokens_.end(), document.tokens.begin(), document.tokens.end());
  size_ = static_cast<int64_t>(tokens_.size());
  text_bytes_ += static_cast<int64_t>(document.text_bytes);
  ++documents_;
  has_context_ = has_context_ || std::ranges::any_of(document.tokens, [](uint32_t token) { return (token & kNoTarget) != 0; });
}

void MemoryStream::read(int64_t first, std::span<uint32_t> out) const {
  PENSTOCK_CHECK(first >= 0 && first + static_cast<int64_t>(out.size()) <= size_, "tokens {} to {} of {}", first, first + static_cast<int64_t>(out.size()), size_);
  std::copy_n(tokens_.begin() + first, out.size(), out.begin());
}

void MemoryStream::document_starts(int64_t first, int64_t last, std::vector<int64_t>& out) const {
  for (auto start = std::ranges::lower_bound(starts_, first); start != starts_.end() && *start < last; ++start) out.push_back(*start);
}

ShardStream::ShardStream(std::vector<Shard> shards) : shards_(std::move(shards)) {
  for (const Shard& shard : shards_) {
    first_.push_back(size_);
    size_ += static_cast<int64_t>(shard.header().tokens);
    documents_ += static_cast<int64_t>(shard.header().documents);
    text_bytes_ += static_cast<int64_t>(shard.header().text_bytes);
    has_context_ = has_context_ || shard.header().has_context;
  }
}

size_t ShardStream::shard_with(int64_t token) const { return static_cast<size_t>(std::ranges::upper_bound(first_, token) - first_.begin()) - 1; }

void ShardStream::read(int64_t first, std::span<uint32_t> out) const {
  PENSTOCK_CHECK(first >= 0 && first + static_cast<int64_t>(out.size()) <= size_, "tokens {} to {} of {}", first, first + static_cast<int64_t>(out.size()), size_);
  for (size_t i = out.empty() ? 0 : shard_with(first); !out.empty(); ++i) {
    const auto inside = static_cast<uint64_t>(first - first_[i]);
    const auto part = out.first(std::min<uint64_t>(out.size(), shards_[i].header().tokens - inside));
    shards_[i].read(inside, part);
    out = out.subspan(part.size());
    first += static_cast<int64_t>(part.size());
  }
}

void ShardStream::document_starts(int64_t first, int64_t last, std::vector<int64_t>& out) const {
  last = std::min(last, size_);
  for (size_t i = first < last ? shard_with(first) : shards_.size(); i < shards_.size() && first_[i] < last; ++i) {
    const uint64_t documents = shards_[i].header().documents;
    uint64_t next = first_document_from(shards_[i], static_cast<uint64_t>(std::max<int64_t>(0, first - first_[i])));
    std::vector<uint64_t> starts;
    for (bool more = true; more && next < documents;) {
      starts.resize(std::min(documents - next, starts.empty() ? 16 : kStartsAtOnce));
      shards_[i].read_starts(next, starts);
      next += starts.size();
      for (const uint64_t start : starts) {
        more = first_[i] + static_cast<int64_t>(start) < last;
        if (!more) break;
        out.push_back(first_[i] + static_cast<int64_t>(start));
      }
    }
  }
}

}  // namespace penstock::data
