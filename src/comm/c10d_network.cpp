#include "comm/c10d_network.h"

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "comm/network_address.h"

namespace penstock::comm {
namespace {

constexpr milliseconds kPollInterval{10};
constexpr seconds kQuietWait{10};  // who speaks for a meeting says for whom it waits when it has lasted so long, and each time as long again
constexpr milliseconds kFirstPoll{1};  // at first: ranks that are about to talk come together

// Where this rank listens for its peers.
std::string choose_address(const cluster::RankInfo& info, const C10dOptions& options) {
  if (!options.hostname.empty()) return options.hostname;
  const std::string address = local_address_towards(info.master_addr, info.master_port);
  if (is_loopback_address(address) && info.world_size > info.local_world_size) {
    throw error(Code::kFailedPrecondition,
                "rank {} would listen on {}, which the {} ranks on other machines cannot reach: MASTER_ADDR '{}' is a loopback name here; "
                "set it to an address that all machines reach, or name the network interface",
                info.rank, address, info.world_size - info.local_world_size, info.master_addr);
  }
  return address;
}

compat::DevicePtr open_device(const cluster::RankInfo& info, const C10dOptions& options) {
  const std::string address = options.interface.empty() ? choose_address(info, options) : "";
  if (address.empty() && !has_interface(options.interface)) {
    throw error(Code::kInvalidArgument, "rank {}: this machine has no network interface '{}'; it has {}", info.rank, options.interface, list_interfaces());
  }
  try {
    return compat::make_device(options.interface, address);
  } catch (const std::exception&) {
    throw error(Code::kInvalidArgument, "rank {} cannot listen on {} '{}': {}", info.rank, address.empty() ? "interface" : "address",
                address.empty() ? options.interface : address, compat::error_text(std::current_exception()));
  }
}

compat::StorePtr open_store(const cluster::RankInfo& info, const Network& network, Deadline deadline) {
  const std::string& store_address = network.store_address;
  // TCPStore's own retries come a second apart, each with a warning.
  while (info.rank != 0 && probe_listener(info.master_addr, info.master_port, deadline) != Listener::kPresent) {
    if (deadline.passed()) {
      throw error(Code::kUnavailable,
                  "rank {} could not reach rank 0's store at {} {}: is rank 0 running (see its log), is that its host (MASTER_ADDR) and port "
                  "(network.master_port or MASTER_PORT), and does no firewall stand between?",
                  info.rank, store_address, network.connect_limit());
    }
    std::this_thread::sleep_for(kPollInterval);
  }
  const auto taken = [&] {
    return error(Code::kUnavailable, "rank 0 cannot open the store at {}: {} has the port; is another job running there? Choose another by network.master_port or MASTER_PORT",
                 store_address, describe_listener(info.master_port));
  };
  // Asked first, as TCPStore has four lines of its own to say about a port that is taken.
  if (info.rank == 0 && probe_listener("127.0.0.1", info.master_port, Deadline::after(seconds(1))) == Listener::kPresent) throw taken();
  try {
    return compat::make_tcp_store(info.master_addr, info.master_port, info.rank == 0, std::max<milliseconds>(deadline.remaining(), seconds(1)));
  } catch (const std::exception&) {
    const std::string cause = compat::error_text(std::current_exception());
    if (info.rank != 0) throw error(Code::kUnavailable, "rank {} cannot reach rank 0's store at {}: {}", info.rank, store_address, cause);
    if (probe_listener(info.master_addr, info.master_port, Deadline::after(seconds(1))) != Listener::kPresent) {
      throw error(Code::kUnavailable, "rank 0 cannot open the store at {}: {}", store_address, cause);
    }
    throw taken();
  }
}

// A first word and its answer: what listens there may be no store, and silent. It also gives the connection a time limit for later answers.
void require_answer(::c10d::Store& store, const std::string& key, Deadline deadline) {
  compat::store_set(store, key, "hello");
  store.wait({key}, std::clamp<milliseconds>(deadline.remaining(), seconds(1), seconds(60)));
}

std::string describe_job(const std::string& name, int world_size) {
  return name.empty() ? fmt::format("a job of {} ranks without a name", world_size) : fmt::format("job '{}' of {} ranks", name, world_size);
}

// Rank 0 says whose store it is; the others compare, and each rank's place can be taken once.
void check_job(const Network& network, const cluster::RankInfo& info, const std::string& world, Deadline deadline) {
  ::c10d::Store& store = *network.store;
  const std::string& store_address = network.store_address;
  const std::string own = describe_job(info.job, info.world_size), key = "job of " + world;
  require_answer(store, fmt::format("hello of rank {} of {}", info.rank, world), deadline);
  if (info.rank == 0) compat::store_set(store, key, own);
  std::optional<std::string> theirs;
  while (!(theirs = compat::store_try_get(store, key))) {
    if (deadline.passed()) {
      throw error(Code::kUnavailable, "rank {}: the store at {} is not that of a Penstock job, or its rank 0 is stuck: it did not say whose it is {}", info.rank, store_address,
                  network.connect_limit());
    }
    std::this_thread::sleep_for(kPollInterval);
  }
  const char* advice = "give each job a port of its own (network.master_port or MASTER_PORT)";
  if (*theirs != own) {
    throw error(Code::kFailedPrecondition, "rank {} of {} has come to the store at {} of {}: {}", info.rank, own, store_address, *theirs, advice);
  }
  if (store.add(fmt::format("rank {} of {}", info.rank, world), 1) > 1) {
    throw error(Code::kFailedPrecondition, "rank {} of {} has come twice to the store at {}: two jobs on one port? If so, {}", info.rank, own, store_address, advice);
  }
}

// Who has not come; empty when all have.
std::string missing_ranks(const Meeting& meeting, std::vector<int>& missing) {
  std::erase_if(missing, [&](int member) { return meeting.store.check({fmt::format("{}/{}", meeting.key, member)}); });
  return fmt::format("{}", fmt::join(missing, ", "));
}

}  // namespace

std::string Network::connect_limit() const {
  return fmt::format("within {:g} s{}", to_seconds(options.connect_timeout), options.connect_timeout_key.empty() ? "" : " (" + options.connect_timeout_key + ")");
}

std::shared_ptr<const Network> open_network(const cluster::RankInfo& info, const C10dOptions& options, const std::string& world, Deadline deadline) {
  auto network = std::make_shared<Network>(
      Network{.store = {}, .device = {}, .options = options, .store_address = fmt::format("{}:{}", info.master_addr, info.master_port)});
  if (info.world_size > 1) {
    network->device = open_device(info, options);
    network->store = open_store(info, *network, deadline);
    try {
      check_job(*network, info, world, deadline);
    } catch (const Error&) {
      throw;
    } catch (const std::exception&) {
      throw error(Code::kUnavailable, "rank {}: what listens at {} does not answer as rank 0's store does; has another program the port? ({})", info.rank, network->store_address,
                  compat::error_text(std::current_exception()));
    }
  }
  return network;
}

std::vector<std::string> exchange_texts(const Meeting& meeting, const std::string& mine) {
  const std::string own_key = fmt::format("{}/{}", meeting.key, meeting.rank);
  compat::store_set(meeting.store, own_key, "=" + mine);  // a text may be empty, a value better not
  // Answers at once; but it also gives the connection a time limit for the answers below.
  meeting.store.wait({own_key}, std::clamp<milliseconds>(meeting.deadline.remaining(), seconds(1), seconds(60)));
  std::vector<int> missing;
  for (int member = 0; member < meeting.size; ++member) missing.push_back(member);
  milliseconds pause = kFirstPoll;
  const auto start = Clock::now();
  for (auto say_next = start + kQuietWait; true;) {
    while (!missing.empty() && meeting.store.check({fmt::format("{}/{}", meeting.key, missing.back())})) missing.pop_back();
    if (missing.empty()) break;
    if (meeting.given_up && meeting.given_up(missing.back())) throw error(Code::kUnavailable, "the other side has left the group, or it is closed");
    if (meeting.deadline.passed()) {
      const std::string ranks = missing_ranks(meeting, missing);
      if (missing.empty()) break;
      throw error(Code::kUnavailable, "{} of {} ranks of group '{}' did not come to the store at {} {}: rank {}; see their logs", missing.size(),
                  meeting.size, meeting.group, meeting.store_address, meeting.limit, ranks);
    }
    if (meeting.speaks && Clock::now() >= say_next) {
      const std::string ranks = missing_ranks(meeting, missing);
      if (missing.empty()) break;
      spdlog::warn("waiting for rank {} of {} at {} for {:.0f} s (group '{}')", ranks, meeting.size, meeting.store_address, to_seconds(Clock::now() - start), meeting.group);
      say_next = Clock::now() + kQuietWait;
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, kPollInterval);
  }
  std::vector<std::string> texts;
  for (int member = 0; member < meeting.size; ++member) {
    texts.push_back(compat::store_try_get(meeting.store, fmt::format("{}/{}", meeting.key, member)).value_or("=").substr(1));
  }
  return texts;
}

}  // namespace penstock::comm
