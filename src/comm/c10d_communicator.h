#pragma once
// The Communicator between processes: c10d's Gloo backend over TCP, ranks meeting in a TCPStore that rank 0 holds.
#include <memory>
#include <string>

#include "base/clock.h"
#include "cluster/launch_env.h"
#include "comm/communicator.h"

namespace penstock::comm {

struct C10dOptions {
  milliseconds connect_timeout = seconds(120);  // for all ranks to appear
  std::string connect_timeout_key = {};         // what the user sets it by, for messages; empty = he cannot
  // Ends a collective that no wait() with a deadline of its own has ended; longer than the longest step or checkpoint.
  milliseconds operation_timeout = std::chrono::minutes(30);
  // Where this rank listens for its peers: an interface ("eth1"), or else a name or address of this machine. Both empty: the address that
  // leads to MASTER_ADDR; never the machine's own name, which is often an alias of loopback.
  std::string interface;
  std::string hostname;
  std::string host = {};  // ranks with the same text share memory; empty = this_host()
};

// Joins the job: rank 0 opens the store at master_addr:master_port, where all ranks meet. One call a process and job; other groups are made by split().
// A world of one rank needs no network. Two ranks connect to each other when they first have something to send, and ranks of one host use shared memory
// for collectives (comm/group_collectives.h): sockets grow with the peers that a rank talks to.
//
// Beside the contract of Communicator:
//   send, recv:  a message moves when its receive is posted (rendezvous), without either caller waiting. done() costs a thread as long as
//                the operation is pending: prefer wait(). A receive that is smaller than its message ends the process (Gloo).
//   failure:     the first failed or timed-out operation closes the group's connections, so that its peers fail at once too, with
//                "connection closed" as the symptom: ask Liveness who was the cause.
//   destructor:  operations that are pending fail on both sides; meet in a barrier() before leaving. Rank 0's world outlives all
//                others' use of split() and Liveness, because it holds the store.
// Throws Error kUnavailable (port taken: by whom; ranks missing: names them), kInvalidArgument (host or interface unknown), kFailedPrecondition (ranks on
// other machines could not reach the address chosen; the store is another job's, or this rank has come before).
[[nodiscard]] std::unique_ptr<Communicator> connect_c10d(const cluster::RankInfo& info, const C10dOptions& options = {},
                                                         const std::string& name = "world");

}  // namespace penstock::comm
