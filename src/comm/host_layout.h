#pragma once
// Which ranks of a group share a machine. Torch-free.
#include <string>
#include <vector>

namespace penstock::comm {

// The machine that this process runs on, as far as memory can be shared on it: the same text for processes that see the same /dev/shm since the same
// boot. PENSTOCK_HOST_ID in the environment overrides it, for tests that play several machines on one.
[[nodiscard]] std::string this_host();

// The ranks of a group by host.
//
//            column 0   column 1
//   host A   rank 0     rank 1        A column has one rank of each host: what goes between hosts goes along columns,
//   host B   rank 2     rank 3        each with its share of the bytes.
struct HostLayout {
  std::vector<std::vector<int>> hosts;  // rising ranks; hosts in the order of their first ones
  int columns = 0;                      // ranks of the smallest host

  [[nodiscard]] static HostLayout of(const std::vector<std::string>& host_of_rank);
  [[nodiscard]] int host_of(int rank) const;
  [[nodiscard]] int column_of(int rank) const;  // may be >= columns
  [[nodiscard]] bool one_host() const { return hosts.size() == 1; }
  // Some ranks share a host.
  [[nodiscard]] bool shared() const;
  // Every host has equally many ranks, with consecutive numbers.
  [[nodiscard]] bool regular() const;
};

}  // namespace penstock::comm
