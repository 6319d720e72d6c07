#include "comm/c10d_communicator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "comm/c10d_compat.h"
#include "comm/c10d_work.h"
#include "comm/combine.h"
#include "comm/direct_exchange.h"
#include "comm/flat_parts.h"
#include "comm/host_memory.h"
#include "comm/network_address.h"
#include "comm/operation_queue.h"

namespace penstock::comm {
namespace {

// What all groups of one process share.
struct Network {
  compat::StorePtr store;  // on rank 0 with the server in it
  compat::DevicePtr device;
  C10dOptions options;
  std::string store_address;  // for messages
};

constexpr milliseconds kPollInterval{10};
constexpr int64_t kSmallBytes = 16 << 10;     // an all_reduce of at most so many is one hop
constexpr int kCollectiveTag = 0x7ffffff0;  // messages of the group's own thread; those of callers have smaller tags
constexpr seconds kQuietWait{10};  // rank 0 says for whom it waits when it has lasted so long, and each time as long again

std::string here_key(int member) { return fmt::format("here/{}", member); }

// Says in the store that `rank` is here, and waits until all `size` ranks have.
void meet(::c10d::Store& store, const Network& network, int rank, int size, const std::string& group, Deadline deadline) {
  compat::store_set(store, here_key(rank), "1");
  // Answers at once; but it also gives the connection a time limit for the answers below.
  store.wait({here_key(rank)}, std::max<milliseconds>(deadline.remaining(), seconds(1)));
  std::vector<int> missing(static_cast<size_t>(size));
  std::iota(missing.begin(), missing.end(), 0);
  const auto start = Clock::now();
  for (auto say_next = start + kQuietWait; !missing.empty();) {
    if (store.check({here_key(missing.back())})) {
      missing.pop_back();
      continue;
    }
    const bool over = deadline.passed(), quiet_for_long = rank == 0 && Clock::now() >= say_next;
    if (over || quiet_for_long) std::erase_if(missing, [&](int other) { return store.check({here_key(other)}); });
    if (missing.empty()) return;
    if (over) {
      throw error(Code::kUnavailable, "{} of {} ranks of group '{}' did not come to the store at {} in time: rank {}; see their logs",
                  missing.size(), size, group, network.store_address, fmt::join(missing, ", "));
    }
    if (quiet_for_long) {
      spdlog::warn("waiting for rank {} of {} at {} for {:.0f} s (group '{}')", fmt::join(missing, ", "), size, network.store_address, to_seconds(Clock::now() - start), group);
      say_next = Clock::now() + kQuietWait;
    }
    std::this_thread::sleep_for(kPollInterval);
  }
}

// Connects the group; `prefix` is the same on all its ranks and used once.
std::shared_ptr<C10dGroup> connect_group(const Network& network, const std::string& prefix, const std::string& name, int rank, int size,
                                         Deadline deadline) {
  if (size == 1) return std::make_shared<C10dGroup>(name, rank, size, compat::BackendPtr());
  const compat::StorePtr store = compat::make_prefix_store(prefix, network.store);
  try {
    meet(*store, network, rank, size, name, deadline);
    auto backend = compat::make_gloo(store, rank, size, network.device, network.options.operation_timeout);
    return std::make_shared<C10dGroup>(name, rank, size, std::move(backend));
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw error(Code::kUnavailable, "rank {} of {} could not connect to its peers in group '{}' (store at {}): {}", rank, size, name,
                network.store_address, compat::error_text(std::current_exception()));
  }
}

class C10dCommunicator : public Communicator {
 public:
  C10dCommunicator(std::shared_ptr<const Network> network, std::shared_ptr<C10dGroup> group, std::string prefix)
      : network_(std::move(network)), group_(std::move(group)), prefix_(std::move(prefix)) {}

  ~C10dCommunicator() override {
    for (const auto& memory : shared_) memory->leave();
    if (queue_.idle()) return;
    try {
      group_->fail(error(Code::kCancelled, "group '{}' was closed in the middle of a collective", name()));
    } catch (const Error&) {  // what is under way on the queue fails with it
    }
  }
  C10dCommunicator(const C10dCommunicator&) = delete;
  C10dCommunicator& operator=(const C10dCommunicator&) = delete;

  [[nodiscard]] int rank() const override { return group_->rank(); }
  [[nodiscard]] int size() const override { return group_->size(); }
  [[nodiscard]] const std::string& name() const override { return group_->name(); }

  WorkPtr send(const Tensor& tensor, int to, int tag) override { return post_send(message("send", tensor, to, tag), tensor); }
  WorkPtr recv(Tensor& tensor, int from, int tag) override { return post_recv(message("recv", tensor, from, tag), tensor); }

  WorkPtr all_reduce(Tensor& tensor, Reduce op) override {
    const Operation operation = collective(op == Reduce::kSum ? "all_reduce(sum)" : "all_reduce(max)", tensor, -1);
    if (is_trivial(tensor)) return complete_work();
    const bool small = static_cast<int64_t>(tensor.nbytes()) <= kSmallBytes;
    return post(operation, tensor, even_parts(tensor.numel(), size()), [this, op, small](const Flat& flat) {
      if (flat.memory) {
        flat.memory->reduce(flat.tensor, flat.offsets, op, true);
      } else if (small) {
        exchange_whole(flat.peers, flat.tensor, op);
      } else {
        DirectExchange(flat.peers, flat.tensor, flat.offsets, scratch_).reduce(op, true);
      }
    });
  }

  WorkPtr all_reduce_rounded(Tensor& tensor, Tensor& residual) override {
    const Operation operation = collective("all_reduce(rounded sum)", tensor, -1);
    PENSTOCK_CHECK(tensor.scalar_type() == at::kFloat && residual.scalar_type() == at::kFloat && residual.is_contiguous() && residual.numel() == tensor.numel(), "{}",
                   operation.describe(*group_));
    if (is_trivial(tensor)) return complete_work();
    return post(operation, tensor, even_parts(tensor.numel(), size()), [this, residual = residual.detach().view(-1)](const Flat& flat) {
      if (flat.memory) return flat.memory->reduce(flat.tensor, flat.offsets, Reduce::kSum, true);
      const at::Tensor rounded = at::empty(flat.tensor.sizes(), at::kBFloat16);
      round_with_residual(flat.tensor, residual, rounded);
      DirectExchange(flat.peers, rounded, flat.offsets, scratch_).reduce(Reduce::kSum, true, residual.data_ptr<float>());
      flat.tensor.copy_(rounded);
    });
  }

  WorkPtr reduce_scatter(Tensor& flat, std::span<const int64_t> offsets) override {
    const Operation operation = collective("reduce_scatter(sum)", flat, -1, offsets);
    if (is_trivial(flat)) return complete_work();
    return post(operation, flat, {offsets.begin(), offsets.end()}, [this](const Flat& given) {
      if (given.memory) {
        given.memory->reduce(given.tensor, given.offsets, Reduce::kSum, false);
      } else {
        DirectExchange(given.peers, given.tensor, given.offsets, scratch_).reduce(Reduce::kSum, false);
      }
    });
  }

  WorkPtr all_gather(Tensor& flat, std::span<const int64_t> offsets) override {
    const Operation operation = collective("all_gather", flat, -1, offsets);
    if (is_trivial(flat)) return complete_work();
    return post(operation, flat, {offsets.begin(), offsets.end()}, [this](const Flat& given) {
      if (given.memory) {
        given.memory->gather(given.tensor, given.offsets);
      } else {
        DirectExchange(given.peers, given.tensor, given.offsets, scratch_).gather();
      }
    });
  }

  WorkPtr broadcast(Tensor& tensor, int root) override {
    const Operation operation = collective("broadcast", tensor, root);
    PENSTOCK_CHECK(0 <= root && root < size(), "{}", operation.describe(*group_));
    if (is_trivial(tensor)) return complete_work();
    // As bytes: the values do not matter, and Gloo of 1.13 knows no bfloat16.
    std::vector<at::Tensor> tensors = {at::from_blob(
        tensor.data_ptr(), {static_cast<int64_t>(tensor.nbytes())}, [tensor](void* /*data*/) {}, at::TensorOptions(at::kByte))};
    ::c10d::BroadcastOptions options;
    options.rootRank = root;
    auto work = launch_in(*group_, operation, [&] { return group_->backend().broadcast(tensors, options); });
    return collective_work(group_, operation, std::move(work), {});
  }

  WorkPtr barrier() override {
    const Operation operation{.name = "barrier"};
    group_->throw_if_dead();
    if (size() == 1) return complete_work();
    return collective_work(group_, operation, launch_in(*group_, operation, [&] { return group_->backend().barrier(); }), {});
  }

  Tensor reduction_buffer(int64_t bytes, Deadline deadline) override {
    auto memory = size() > 1 ? HostMemory::connect(*this, bytes, [group = group_] { return group->dead(); }, deadline) : nullptr;
    if (!memory) return Communicator::reduction_buffer(bytes, deadline);
    shared_.push_back(memory);
    return memory->buffer();
  }

  std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    group_->throw_if_dead();
    PENSTOCK_CHECK(!ranks.empty() && std::is_sorted(ranks.begin(), ranks.end(), std::less_equal<>()) && ranks.front() >= 0 && ranks.back() < size(),
                   "split '{}' of a group of {} into [{}]", name, size(), fmt::join(ranks, ", "));
    const std::string prefix = fmt::format("{}/{}.{}", prefix_, num_splits_++, name);  // counted alike on every rank
    const auto position = std::find(ranks.begin(), ranks.end(), rank());
    if (position == ranks.end()) return nullptr;
    auto group = connect_group(*network_, prefix, name, static_cast<int>(position - ranks.begin()), static_cast<int>(ranks.size()), deadline);
    return std::make_unique<C10dCommunicator>(network_, std::move(group), prefix);
  }

  [[nodiscard]] int64_t bytes_sent() const override { return group_->bytes_sent(); }

 private:
  // What a collective of the group's own thread works on.
  struct Flat {
    at::Tensor tensor;  // one-dimensional
    std::vector<int64_t> offsets;
    std::shared_ptr<HostMemory> memory;  // that the tensor lies in, or null
    Peers peers;
  };

  // Runs `run` on the group's own thread, after what was posted before.
  WorkPtr post(const Operation& operation, const Tensor& tensor, std::vector<int64_t> offsets, std::function<void(const Flat&)> run) {
    Flat flat{tensor.detach().view(-1), std::move(offsets), nullptr, peers_for(operation)};
    for (const auto& memory : shared_) {
      if (memory->holds(tensor)) flat.memory = memory;
    }
    auto guarded = [group = group_, operation, run = std::move(run), flat = std::move(flat)] {
      try {
        run(flat);
      } catch (const Error& e) {
        group->fail(error(e.code(), "{}: {}", operation.describe(*group), e.message()));  // the first error stays
      }
    };
    auto late = [group = group_, operation] {
      const std::string who = group->awaited() >= 0 ? fmt::format("it waits for rank {}", group->awaited()) : "some rank has not called it";
      group->fail(error(Code::kDeadlineExceeded, "{} was not complete by its deadline; {}", operation.describe(*group), who));
    };
    return queue_.post(std::move(guarded), std::move(late));
  }

  Peers peers_for(const Operation& operation) {
    const auto part = [within = operation.name](const char* name, const at::Tensor& tensor, int peer) {
      return Operation{.name = name, .peer = peer, .num_elements = tensor.numel(), .dtype = tensor.scalar_type(), .within = within, .channel = kCollectiveTag};
    };
    Peers peers;
    peers.rank = rank();
    peers.size = size();
    peers.send = [this, part](const at::Tensor& tensor, int to) { return post_send(part("send", tensor, to), tensor); };
    peers.recv = [this, part](at::Tensor& tensor, int from) { return post_recv(part("recv", tensor, from), tensor); };
    peers.await = [this](Work& work, int from) {
      group_->set_awaited(from);
      work.wait(Deadline::after(network_->options.operation_timeout));
      group_->set_awaited(-1);
    };
    return peers;
  }

  WorkPtr post_send(const Operation& operation, const Tensor& tensor) {
    std::vector<at::Tensor> tensors = {tensor};
    group_->count_sent(static_cast<int64_t>(tensor.nbytes()));
    return message_work(group_, operation, launch_in(*group_, operation, [&] { return group_->backend().send(tensors, operation.peer, operation.channel); }));
  }

  WorkPtr post_recv(const Operation& operation, const Tensor& tensor) {
    std::vector<at::Tensor> tensors = {tensor};
    return message_work(group_, operation, launch_in(*group_, operation, [&] { return group_->backend().recv(tensors, operation.peer, operation.channel); }));
  }

  // Checks what callers must keep; a Bug otherwise.
  Operation collective(const char* name, const Tensor& tensor, int root, std::span<const int64_t> offsets) const {
    const std::string wrong = wrong_parts(offsets, tensor.numel(), size());
    PENSTOCK_CHECK(wrong.empty(), "{} in group '{}': {}", name, this->name(), wrong);
    return collective(name, tensor, root);
  }

  Operation collective(const char* name, const Tensor& tensor, int root) const {
    const Operation operation{.name = name, .peer = root, .tag = -1, .num_elements = tensor.numel(), .dtype = tensor.scalar_type()};
    group_->throw_if_dead();
    static constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kLong, at::kInt, at::kByte};
    PENSTOCK_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), "{}", operation.describe(*group_));
    PENSTOCK_CHECK(std::find(std::begin(kDtypes), std::end(kDtypes), tensor.scalar_type()) != std::end(kDtypes), "{}", operation.describe(*group_));
    return operation;
  }

  Operation message(const char* name, const Tensor& tensor, int peer, int tag) const {
    Operation operation = collective(name, tensor, peer);
    operation.tag = operation.channel = tag;
    PENSTOCK_CHECK(0 <= peer && peer < size() && peer != rank() && tag >= 0 && tag < kCollectiveTag, "{}", operation.describe(*group_));
    return operation;
  }

  // All ranks' tensors have the same shape, so all ranks agree.
  [[nodiscard]] bool is_trivial(const Tensor& tensor) const { return size() == 1 || tensor.numel() == 0; }

  const std::shared_ptr<const Network> network_;
  const std::shared_ptr<C10dGroup> group_;
  const std::string prefix_;
  std::vector<std::shared_ptr<HostMemory>> shared_;  // that reduction_buffer() gave out
  at::Tensor scratch_;                               // of the queue's thread
  int num_splits_ = 0;
  OperationQueue queue_;  // last: its thread uses the others
};

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
    throw error(Code::kInvalidArgument, "rank {}: this machine has no network interface '{}'", info.rank, options.interface);
  }
  try {
    return compat::make_device(options.interface, address);
  } catch (const std::exception&) {
    throw error(Code::kInvalidArgument, "rank {} cannot listen on {} '{}': {}", info.rank, address.empty() ? "interface" : "address",
                address.empty() ? options.interface : address, compat::error_text(std::current_exception()));
  }
}

compat::StorePtr open_store(const cluster::RankInfo& info, const std::string& store_address, Deadline deadline) {
  // TCPStore's own retries come a second apart, each with a warning.
  while (info.rank != 0 && probe_listener(info.master_addr, info.master_port, deadline) != Listener::kPresent) {
    if (deadline.passed()) throw error(Code::kUnavailable, "rank {} cannot reach rank 0's store at {}; see rank 0's log", info.rank, store_address);
    std::this_thread::sleep_for(kPollInterval);
  }
  try {
    return compat::make_tcp_store(info.master_addr, info.master_port, info.rank == 0, std::max<milliseconds>(deadline.remaining(), seconds(1)));
  } catch (const std::exception&) {
    const std::string cause = compat::error_text(std::current_exception());
    if (info.rank != 0) throw error(Code::kUnavailable, "rank {} cannot reach rank 0's store at {}: {}", info.rank, store_address, cause);
    throw error(Code::kUnavailable, "rank 0 cannot open the store at {}: {}; if another job has the port, choose another MASTER_PORT",
                store_address, cause);
  }
}

}  // namespace

std::unique_ptr<Communicator> connect_c10d(const cluster::RankInfo& info, const C10dOptions& options, const std::string& name) {
  PENSTOCK_CHECK(0 <= info.rank && info.rank < info.world_size, "rank {} of {}", info.rank, info.world_size);
  const Deadline deadline = Deadline::after(options.connect_timeout);
  auto network = std::make_shared<Network>(
      Network{.store = {}, .device = {}, .options = options, .store_address = fmt::format("{}:{}", info.master_addr, info.master_port)});
  if (info.world_size > 1) {
    network->device = open_device(info, options);
    network->store = open_store(info, network->store_address, deadline);
  }
  auto group = connect_group(*network, name, name, info.rank, info.world_size, deadline);
  return std::make_unique<C10dCommunicator>(std::move(network), std::move(group), name);
}

}  // namespace penstock::comm
