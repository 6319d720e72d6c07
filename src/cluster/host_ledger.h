#pragma once
// Which of several machines, and which of their GPUs and cores, the ranks of a worker group get. Pure bookkeeping: no threads, no processes, no clock.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"

namespace penstock::cluster {

// What one machine has to give.
struct HostOffer {
  std::string name;
  std::vector<std::string> devices;  // GPUs, by the names that CUDA_VISIBLE_DEVICES takes
  std::vector<std::string> cores;
};

// What a worker group needs of other machines than the front door's.
struct GroupShape {
  int num_hosts = 1;                 // other machines
  int ranks_per_host = 1;
  bool on_gpu = false;
  int devices_per_host = 0;          // on_gpu
  std::vector<int> device_ids = {};  // of each machine; empty = all
  int cores_per_rank = 0;            // without GPUs: cores of their own, if enough are free; 0 = any core
};

// One machine's part of a group.
struct HostShare {
  uint64_t host = 0;
  std::string name;                  // of the machine
  int first_rank = 0;                // of those there; the first machine of all, the front door's, has rank 0
  int num_ranks = 0;
  std::vector<std::string> devices = {};
  std::vector<std::string> cores = {};  // empty: on any core
};

// Every device and core has one holder at most, and what a machine held is gone with it.
class HostLedger {
 public:
  // A machine has come. Its number is never given again.
  [[nodiscard]] uint64_t add(HostOffer offer);
  // It has gone: its shares hold nothing any more. REQUIRES: it is there.
  void remove(uint64_t host);

  // A share on each of shape.num_hosts machines, ranks in the order of the machines' names; of machines that have enough, those with the fewest free
  // devices (without GPUs, the fewest ranks) come first, so that large groups find room later. All or nothing.
  // Errors: kResourceExhausted naming what is missing, and what each machine has.
  [[nodiscard]] Result<std::vector<HostShare>> place(const GroupShape& shape);
  // Gives back one share. Harmless when its machine has gone.
  void release(const HostShare& share);

  [[nodiscard]] int num_hosts() const { return static_cast<int>(hosts_.size()); }
  // Of one machine. REQUIRES: it is there.
  [[nodiscard]] int num_free_devices(uint64_t host) const;

 private:
  struct Host {
    HostOffer offer;
    std::vector<bool> device_used;
    std::vector<bool> core_used;
    int num_ranks = 0;
  };
  [[nodiscard]] static std::vector<size_t> free_devices(const Host& host, const GroupShape& shape);
  [[nodiscard]] Error missing(const GroupShape& shape, size_t found) const;
  [[nodiscard]] static HostShare take(uint64_t number, Host& host, const GroupShape& shape);

  std::map<uint64_t, Host> hosts_;
  uint64_t next_ = 1;
};

}  // namespace penstock::cluster
