#include "cluster/host_ledger.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace penstock::cluster {
namespace {

void give_back(const std::vector<std::string>& names, const std::vector<std::string>& all, std::vector<bool>& used) {
  for (const std::string& name : names) {
    const auto found = std::find(all.begin(), all.end(), name);
    const auto at = static_cast<size_t>(found - all.begin());
    PENSTOCK_CHECK(found != all.end() && used[at], "'{}' is given back but was not taken", name);
    used[at] = false;
  }
}

}  // namespace

uint64_t HostLedger::add(HostOffer offer) {
  Host host;
  host.device_used.assign(offer.devices.size(), false);
  host.core_used.assign(offer.cores.size(), false);
  host.offer = std::move(offer);
  hosts_.emplace(next_, std::move(host));
  return next_++;
}

void HostLedger::remove(uint64_t host) {
  PENSTOCK_CHECK(hosts_.erase(host) == 1, "machine {} goes but is not there", host);
}

// Indices of those that the group may have; an id beyond the machine's devices is none.
std::vector<size_t> HostLedger::free_devices(const Host& host, const GroupShape& shape) {
  std::vector<size_t> found;
  for (size_t device = 0; device < host.device_used.size(); ++device) {
    const bool asked_for = shape.device_ids.empty() || std::find(shape.device_ids.begin(), shape.device_ids.end(), static_cast<int>(device)) != shape.device_ids.end();
    if (asked_for && !host.device_used[device]) found.push_back(device);
  }
  return found;
}

Result<std::vector<HostShare>> HostLedger::place(const GroupShape& shape) {
  using Candidate = std::tuple<size_t, std::string, uint64_t>;  // how good, the smaller the better; name; number
  std::vector<Candidate> candidates;
  for (const auto& [number, host] : hosts_) {
    const size_t free = free_devices(host, shape).size();
    if (shape.on_gpu && free < static_cast<size_t>(shape.devices_per_host)) continue;
    candidates.emplace_back(shape.on_gpu ? free : static_cast<size_t>(host.num_ranks), host.offer.name, number);
  }
  if (candidates.size() < static_cast<size_t>(shape.num_hosts)) return missing(shape, candidates.size());
  std::sort(candidates.begin(), candidates.end());
  candidates.resize(static_cast<size_t>(shape.num_hosts));
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) { return std::get<1>(a) < std::get<1>(b); });
  std::vector<HostShare> shares;
  for (const auto& [rating, name, number] : candidates) {
    shares.push_back(take(number, hosts_.at(number), shape));
    shares.back().first_rank = static_cast<int>(shares.size()) * shape.ranks_per_host;
  }
  return shares;
}

HostShare HostLedger::take(uint64_t number, Host& host, const GroupShape& shape) {
  HostShare share;
  share.host = number;
  share.name = host.offer.name;
  share.num_ranks = shape.ranks_per_host;
  host.num_ranks += shape.ranks_per_host;
  if (shape.on_gpu) {
    auto free = free_devices(host, shape);
    free.resize(static_cast<size_t>(shape.devices_per_host));
    for (const size_t device : free) {
      host.device_used[device] = true;
      share.devices.push_back(host.offer.devices[device]);
    }
    return share;
  }
  const auto wanted = static_cast<size_t>(shape.cores_per_rank * shape.ranks_per_host);
  if (static_cast<size_t>(std::count(host.core_used.begin(), host.core_used.end(), false)) < wanted) return share;  // it shares them with others
  for (size_t core = 0; core < host.core_used.size() && share.cores.size() < wanted; ++core) {
    if (host.core_used[core]) continue;
    host.core_used[core] = true;
    share.cores.push_back(host.offer.cores[core]);
  }
  return share;
}

void HostLedger::release(const HostShare& share) {
  const auto found = hosts_.find(share.host);
  if (found == hosts_.end()) return;
  Host& host = found->second;
  give_back(share.devices, host.offer.devices, host.device_used);
  give_back(share.cores, host.offer.cores, host.core_used);
  host.num_ranks -= share.num_ranks;
  PENSTOCK_CHECK(host.num_ranks >= 0, "a share of machine '{}' is given back twice", share.name);
}

int HostLedger::num_free_devices(uint64_t host) const {
  const auto& used = hosts_.at(host).device_used;
  return static_cast<int>(std::count(used.begin(), used.end(), false));
}

Error HostLedger::missing(const GroupShape& shape, size_t found) const {
  const std::string each = shape.on_gpu ? fmt::format(" with {} free GPU(s) each{}", shape.devices_per_host, shape.device_ids.empty() ? "" : " of deviceIds") : "";
  std::string there;
  for (const auto& [number, host] : hosts_) {
    there += fmt::format("{}'{}'", there.empty() ? "" : ", ", host.offer.name);
    if (shape.on_gpu) there += fmt::format(" with {} free of {}", free_devices(host, shape).size(), host.offer.devices.size());
  }
  return error(Code::kResourceExhausted, "expected {} other machine(s){}, found {} of them{}; start `penstock agent` on {} more", shape.num_hosts, each, found,
               there.empty() ? ": no agent is connected" : " (agents: " + there + ")", shape.num_hosts - static_cast<int>(found));
}

}  // namespace penstock::cluster
