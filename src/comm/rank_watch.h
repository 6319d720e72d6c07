#pragma once
// How rank 0 decides from heartbeats that a rank has died. Pure: it is told what was read and how much time went by. Torch-free.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "comm/process_identity.h"

namespace penstock::comm {

enum class RankState {
  kAlive,
  kTold,    // alive, and has read the verdict
  kFailed,  // says that it leaves because of `text`
  kDone,    // says that it has finished
};

// What a rank last wrote into the store.
struct Heartbeat {
  uint64_t count = 0;
  RankState state = RankState::kAlive;
  std::string text;

  [[nodiscard]] std::string to_text() const;
  [[nodiscard]] static std::optional<Heartbeat> from_text(std::string_view text);
};

// "rank 2 (pid 4711 on node1)"; "rank 2" when nothing is known of its process.
[[nodiscard]] std::string describe_rank(int rank, const std::optional<ProcessIdentity>& process);

class RankWatch {
 public:
  RankWatch(int world_size, milliseconds dead_after, milliseconds start_after);

  void set_identity(int rank, const ProcessIdentity& process) { watched(rank).process = process; }
  [[nodiscard]] const std::optional<ProcessIdentity>& identity(int rank) const { return ranks_[static_cast<size_t>(rank)].process; }

  // What was read of `rank` now, `elapsed` after the last reading.
  void observe(int rank, const std::optional<Heartbeat>& heartbeat, milliseconds elapsed);
  // The rank's process has ended for certain; not a death when it had finished.
  void observe_end(int rank);

  // The first failure seen.
  [[nodiscard]] const std::optional<std::string>& verdict() const { return verdict_; }
  // Every rank but 0 knows the verdict, or is no longer there to be told.
  [[nodiscard]] bool all_told() const;
  // Every rank but 0 has finished or failed, and needs the store no more.
  [[nodiscard]] bool all_left() const;

 private:
  struct Watched {
    std::optional<ProcessIdentity> process;
    std::optional<Heartbeat> last;
    milliseconds silent{0};  // since `last` changed, or since the start
    bool dead = false;
  };
  Watched& watched(int rank) { return ranks_[static_cast<size_t>(rank)]; }
  void die(int rank, const std::string& how);
  [[nodiscard]] bool left(const Watched& rank) const;

  const milliseconds dead_after_;
  const milliseconds start_after_;
  std::vector<Watched> ranks_;
  std::optional<std::string> verdict_;
};

}  // namespace penstock::comm
