#include "plan/tensor_part.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <string>

namespace penstock::plan {
namespace {

constexpr int64_t kBlock = 32;     // columns of a block of quantized weights
constexpr int64_t kMostTried = 64; // ranks that an error suggests

// The rank's share of `count`, in whole units; shares differ by a unit at most.
Range share(int64_t count, int64_t unit, int rank, int num_ranks) {
  const int64_t units = count / unit;
  return Range{units * rank / num_ranks, units * (rank + 1) / num_ranks}.times(unit);
}

std::optional<std::string> problem(const TensorSizes& s, int64_t ranks) {
  if (s.num_heads % ranks != 0) return fmt::format("{} attention heads (num_attention_heads) are not a multiple of it", s.num_heads);
  if (s.num_kv_heads % ranks != 0 && ranks % s.num_kv_heads != 0) {
    return fmt::format("{} heads of keys and values (num_key_value_heads) are neither a multiple nor a divisor of it", s.num_kv_heads);
  }
  if (s.intermediate_size < ranks) return fmt::format("the feed-forward part is only {} wide (intermediate_size)", s.intermediate_size);
  if (s.vocab_size < ranks) return fmt::format("there are only {} tokens (vocab_size)", s.vocab_size);
  return std::nullopt;
}

}  // namespace

Result<TensorPart> tensor_part(const TensorSizes& s, int rank, int num_ranks) {
  if (const auto why = problem(s, num_ranks)) {
    std::vector<int64_t> possible;
    for (int64_t ranks = 1; ranks <= std::min(s.num_heads, kMostTried); ++ranks) {
      if (!problem(s, ranks)) possible.push_back(ranks);
    }
    return error(Code::kInvalidArgument, "{} ranks cannot share the layers of this model: {}; possible numbers of tensor ranks: {}", num_ranks, *why, fmt::join(possible, ", "));
  }
  TensorPart part;
  part.heads = share(s.num_heads, 1, rank, num_ranks);
  const int64_t group = s.num_heads / s.num_kv_heads;  // query heads that read one head of keys
  part.kv_heads = {part.heads.begin / group, (part.heads.end + group - 1) / group};
  const bool in_blocks = s.intermediate_size % kBlock == 0 && s.intermediate_size / kBlock >= num_ranks;
  part.intermediate = share(s.intermediate_size, in_blocks ? kBlock : 1, rank, num_ranks);
  part.vocab = share(s.vocab_size, 1, rank, num_ranks);
  return part;
}

std::vector<int64_t> vocab_offsets(const TensorSizes& s, int num_ranks) {
  std::vector<int64_t> offsets{0};
  for (int rank = 0; rank < num_ranks; ++rank) offsets.push_back(share(s.vocab_size, 1, rank, num_ranks).end);
  return offsets;
}

}  // namespace penstock::plan
