#pragma once
// How the processes of a job find each other: the store on rank 0, and the address on which each listens. Internal to the c10d_*.cpp files.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/c10d_communicator.h"
#include "comm/c10d_compat.h"

namespace penstock::comm {

// What all groups of one process share.
struct Network {
  compat::StorePtr store;  // on rank 0 with the server in it
  compat::DevicePtr device;
  C10dOptions options;
  std::string store_address;  // for messages

  // "within 120 s (network.connect_timeout_seconds)"
  [[nodiscard]] std::string connect_limit() const;
};

// Opens what connect_c10d() needs, and refuses ranks of another job, by the jobs' names and sizes; throws its Errors. `world`: the name of that group.
[[nodiscard]] std::shared_ptr<const Network> open_network(const cluster::RankInfo& info, const C10dOptions& options, const std::string& world, Deadline deadline);

// A meeting of a group's ranks in its store.
struct Meeting {
  ::c10d::Store& store;
  std::string key;    // used for one meeting only
  std::string group;  // for messages
  std::string store_address;
  int rank = 0;
  int size = 1;
  Deadline deadline = Deadline::never();
  std::string limit = "in time";  // the deadline, for messages
  bool speaks = false;  // logs every ten seconds for whom it waits
  std::function<bool(int rank)> given_up;  // asked while it waits for a rank: true ends the wait; may be empty
};

// Every rank gives a text and gets those of all, by rank. Blocks until all have come. Throws Error kUnavailable naming those that have not by the
// deadline, or when given up, and c10::Error when the store is gone.
[[nodiscard]] std::vector<std::string> exchange_texts(const Meeting& meeting, const std::string& mine);

}  // namespace penstock::comm
