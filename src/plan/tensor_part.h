#pragma once
// What each of the ranks that share the layers of a model holds of them (tensor parallelism; Shoeybi et al. 2019, arXiv 1909.08053). Pure.
#include <cstdint>
#include <vector>

#include "base/error.h"

namespace penstock::plan {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;

  [[nodiscard]] int64_t size() const { return end - begin; }
  // Of heads to their rows, so many each.
  [[nodiscard]] Range times(int64_t unit) const { return {begin * unit, end * unit}; }
  [[nodiscard]] Range plus(int64_t offset) const { return {begin + offset, end + offset}; }
  bool operator==(const Range&) const = default;
};

// What is divided.
struct TensorSizes {
  int64_t vocab_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  // divides num_heads
  int64_t intermediate_size = 0;
};

// Of one rank. Queries, keys, values and the first product of the feed-forward part are cut by rows ("column-parallel"), the products after them by the columns
// that read those rows ("row-parallel"), whose results the ranks add up. Tables of tokens and the head are cut by tokens. Norms, and the biases of what
// is added up, are on every rank.
struct TensorPart {
  Range heads;         // as many on every rank
  Range kv_heads;      // that those heads read. With fewer of them than ranks, several ranks hold the same one
  Range intermediate;  // cut between blocks of 32 where it consists of them, so that quantized weights are cut between their blocks; else anywhere
  Range vocab;         // tokens

  bool operator==(const TensorPart&) const = default;
};

// kInvalidArgument where heads cannot be shared evenly, or there are more ranks than something has elements: what does not divide, and which numbers of
// ranks do. REQUIRES: 0 <= rank < num_ranks.
[[nodiscard]] Result<TensorPart> tensor_part(const TensorSizes& sizes, int rank, int num_ranks);

// Where the ranks' tokens begin, and the end of the last ones: num_ranks + 1 numbers.
[[nodiscard]] std::vector<int64_t> vocab_offsets(const TensorSizes& sizes, int num_ranks);

}  // namespace penstock::plan
