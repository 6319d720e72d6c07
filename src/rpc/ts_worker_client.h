#pragma once
// frontend::WorkerClient of TorchServe's Python worker (ts_protocol.h) on unix sockets, one for each rank.
#include <filesystem>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "frontend/worker_client.h"
#include "rpc/ts_protocol.h"

namespace penstock::rpc {

// Which ranks get a batch. All load the model, and the answers are rank 0's.
enum class TsAudience {
  kFirstRank,  // parallelType pp: it sends the others their parts itself
  kAllRanks,   // tp, pptp: each computes its part of every layer
};

// The worker takes one batch at a time: up to load.batch_size requests that come within `max_batch_delay` of the first. It cannot be told to
// stop one: a cancelled request that runs has its answer dropped. Text generations are refused.
//
// Threads: one of its own connects, loads, sends batches, reads answers and calls observers.
// Errors:  wait_ready(): what the worker says of a failed LOAD, as kInternal. A connection that ends or carries garbage ends what runs as
//          kUnavailable and kInternal.
[[nodiscard]] std::shared_ptr<frontend::WorkerClient> make_ts_worker_client(std::vector<std::filesystem::path> sockets, TsAudience audience, TsLoad load,
                                                                            milliseconds max_batch_delay);

}  // namespace penstock::rpc
