#pragma once
// Notices that a rank of a multi-process job has died, and tells every other rank which one it was, and why if it said so.
//
// A collective that fails says "connection closed by peer": a symptom, on the ranks that happened to talk to the dead one, or to one that
// left because of it. Liveness finds the cause. Every rank writes a heartbeat into the job's store; rank 0 reads all of them and writes the
// verdict, which the others read. The store is in rank 0's process, so a store that is gone is rank 0's death.
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "cluster/launch_env.h"

namespace penstock::comm {

struct LivenessOptions {
  milliseconds interval{250};                // between heartbeats
  milliseconds dead_after = seconds(5);      // a silent rank is dead then; one that ended on rank 0's machine is noticed in an interval or two
  milliseconds start_after = seconds(60);    // a rank that never showed a heartbeat is dead then
  milliseconds tell_within = seconds(2);     // how long rank 0 stays, at most, for all others to have read the verdict
  // Called once, from the heartbeat thread, after first_failure() has been answered: "rank 2 (pid 4711 on node1) has ended without a word".
  // The main thread may be stuck in a wait, so this usually prints the text and ends the process with _exit().
  std::function<void(const std::string& text)> on_failure;
  // Called on every rank, from the heartbeat thread, when one of them has raised an alarm: "rank 2's step takes longer than 30 s".
  // Alarms that come within an interval of each other may be heard as one.
  std::function<void(const std::string& text)> on_alarm;
};

// One rank's part. To be made after connect_c10d() with the same RankInfo, and destroyed before that world (rank 0's holds the store).
// A world of one rank does nothing.
//
// Threads: methods may be called from any thread. Owns one thread, which has a connection of its own to the store.
class Liveness {
 public:
  // Throws Error kUnavailable when the store cannot be reached.
  Liveness(const cluster::RankInfo& info, LivenessOptions options);
  // Stops without a word: unless post_done() or post_failure() came first, the others will take this rank for dead.
  ~Liveness();
  Liveness(const Liveness&) = delete;
  Liveness& operator=(const Liveness&) = delete;

  // This rank is about to leave because of `text`. Returns when the others can read it (on rank 0: when they have), or at the deadline.
  // on_failure is not called on this rank. Ask first_failure() before, so as not to report another rank's death as one's own.
  void post_failure(const std::string& text, Deadline deadline);

  // This rank has finished its work and may end now. On rank 0, waits until all other ranks have finished, failed or died, or the deadline:
  // they need its store.
  void post_done(Deadline deadline);

  // Something is wrong that is no failure yet: on_alarm is called on all ranks, this one included, within two intervals. Returns at once.
  void raise_alarm(const std::string& text);

  // The first failure that the job has seen, in words that name the rank; waits for one until the deadline. For the main thread when an
  // operation failed: a silent death is known after at most dead_after + tell_within and a second.
  [[nodiscard]] std::optional<std::string> first_failure(Deadline deadline);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::comm
