#include "comm/host_layout.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "comm/process_identity.h"

namespace penstock::comm {

std::string this_host() {
  const char* given = std::getenv("PENSTOCK_HOST_ID");
  if (given != nullptr && *given != '\0') return given;
  const ProcessIdentity self = this_process();
  struct stat memory {};
  const bool known = ::stat("/dev/shm", &memory) == 0;
  // Without a boot id its name has to do; processes that turn out not to share memory use the network.
  return fmt::format("{} {} {}", self.host, self.pid_space.substr(0, self.pid_space.find(' ')), known ? memory.st_dev : 0);
}

HostLayout HostLayout::of(const std::vector<std::string>& host_of_rank) {
  HostLayout layout;
  std::vector<std::string> names;
  for (size_t rank = 0; rank < host_of_rank.size(); ++rank) {
    const auto found = std::find(names.begin(), names.end(), host_of_rank[rank]);
    if (found == names.end()) {
      names.push_back(host_of_rank[rank]);
      layout.hosts.push_back({static_cast<int>(rank)});
    } else {
      layout.hosts[static_cast<size_t>(found - names.begin())].push_back(static_cast<int>(rank));
    }
  }
  size_t smallest = host_of_rank.size();
  for (const auto& ranks : layout.hosts) smallest = std::min(smallest, ranks.size());
  layout.columns = static_cast<int>(smallest);
  return layout;
}

int HostLayout::host_of(int rank) const {
  for (size_t host = 0; host < hosts.size(); ++host) {
    if (std::binary_search(hosts[host].begin(), hosts[host].end(), rank)) return static_cast<int>(host);
  }
  PENSTOCK_CHECK(false, "rank {} is on none of {} hosts", rank, hosts.size());
}

int HostLayout::column_of(int rank) const {
  const auto& ranks = hosts[static_cast<size_t>(host_of(rank))];
  return static_cast<int>(std::lower_bound(ranks.begin(), ranks.end(), rank) - ranks.begin());
}

bool HostLayout::shared() const {
  return std::any_of(hosts.begin(), hosts.end(), [](const auto& ranks) { return ranks.size() > 1; });
}

bool HostLayout::regular() const {
  return std::all_of(hosts.begin(), hosts.end(), [&](const auto& ranks) {
    return static_cast<int>(ranks.size()) == columns && ranks.back() - ranks.front() + 1 == columns;
  });
}

}  // namespace penstock::comm
