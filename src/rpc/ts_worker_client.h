#pragma once
// frontend::WorkerClient of TorchServe's Python worker (ts_protocol.h) on a unix socket.
#include <filesystem>
#include <memory>

#include "base/clock.h"
#include "frontend/worker_client.h"
#include "rpc/ts_protocol.h"

namespace penstock::rpc {

// The worker takes one batch at a time: up to load.batch_size requests that come within `max_batch_delay` of the first. It cannot be told to
// stop one: a cancelled request that runs has its answer dropped. Text generations are refused.
//
// Threads: one of its own connects, loads, sends batches, reads answers and calls observers.
// Errors:  wait_ready(): what the worker says of a failed LOAD, as kInternal. A connection that ends or carries garbage ends what runs as
//          kUnavailable and kInternal.
[[nodiscard]] std::shared_ptr<frontend::WorkerClient> make_ts_worker_client(const std::filesystem::path& socket, TsLoad load,
                                                                            milliseconds max_batch_delay);

}  // namespace penstock::rpc
