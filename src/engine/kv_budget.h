#pragma once
// How much memory the KV cache of a stage gets.
#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"

namespace penstock::engine {

struct KvDemand {
  int64_t page_bytes = 0;  // of the stage's layers; 0: it has none
  int max_sequences = 1;
  int max_sequence_tokens = 1;     // of a sequence of full length
  int least_sequence_tokens = 1;   // shorter sequences than these are not worth serving
  int ranks_on_host = 1;   // or on one GPU, that share its memory
  std::string place = {};  // for messages: " of cuda:0"; empty: the machine's memory
};

// The share of the memory that is available when a model is loaded which its KV caches may take by themselves.
inline constexpr double kKvMemoryShare = 0.5;

// Pages of the cache. With a `budget` in bytes: as many as it holds. Without (0): as many as max_sequences of full length need, within this rank's part of
// kKvMemoryShare of what is `available` (bytes; absent = not known, nothing is checked against it).
// kResourceExhausted when one sequence of the least length does not fit, or the budget is more than there is: what is needed, what there is, what to try.
[[nodiscard]] Result<int> plan_pages(const KvDemand& demand, int64_t budget, std::optional<int64_t> available);

}  // namespace penstock::engine
