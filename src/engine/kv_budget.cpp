#include "engine/kv_budget.h"

#include <algorithm>

#include "engine/page_pool.h"

namespace penstock::engine {
namespace {

constexpr int64_t kMostPages = 1 << 24;  // page numbers fit everywhere

// For messages, rounded up: a small need is not "0 MiB".
int64_t mib(int64_t bytes) { return (bytes + (1 << 20) - 1) >> 20; }

}  // namespace

Result<int> plan_pages(const KvDemand& demand, int64_t budget, std::optional<int64_t> available) {
  const int64_t of_one = pages_for(demand.least_sequence_tokens), wanted = std::min(kMostPages, pages_for(demand.max_sequence_tokens) * int64_t{demand.max_sequences});
  if (demand.page_bytes == 0) return static_cast<int>(budget > 0 ? kMostPages : wanted);
  if (budget > 0 && available && budget > *available) {
    return error(Code::kResourceExhausted, "handler.kv_cache_mb: {} MiB for the KV cache of each rank, but {} MiB{} are available; expected less", mib(budget),
                 *available >> 20, demand.place);
  }
  const auto share = static_cast<int64_t>(kKvMemoryShare * static_cast<double>(available.value_or(INT64_MAX / 2)) / demand.ranks_on_host);
  const int64_t pages = budget > 0 ? std::min(kMostPages, budget / demand.page_bytes) : std::min(wanted, share / demand.page_bytes);
  if (pages >= of_one) return static_cast<int>(pages);
  const int64_t needed = of_one * demand.page_bytes;
  if (budget > 0) {
    return error(Code::kResourceExhausted,
                 "handler.kv_cache_mb: {} MiB hold {} tokens of a sequence on this rank; one of {} tokens needs {} MiB. Give more, or set "
                 "handler.max_sequence_tokens lower",
                 mib(budget), pages * kPageTokens, demand.least_sequence_tokens, mib(needed));
  }
  return error(Code::kResourceExhausted,
               "the KV cache of one sequence of {} tokens needs {} MiB on this rank; {} MiB of memory{} are available, of which the caches of {} ranks may take half. "
               "Set handler.max_sequence_tokens lower, free memory, or set handler.kv_cache_mb",
               demand.least_sequence_tokens, mib(needed), available.value_or(0) >> 20, demand.place, demand.ranks_on_host);
}

}  // namespace penstock::engine
