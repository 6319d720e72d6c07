#include "comm/c10d_communicator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "comm/c10d_compat.h"
#include "comm/c10d_work.h"
#include "comm/host_memory.h"
#include "comm/network_address.h"

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

// Says in the store that `rank` is here, and waits until all `size` ranks have.
void meet(::c10d::Store& store, const Network& network, int rank, int size, const std::string& group, Deadline deadline) {
  const auto key = [](int member) { return fmt::format("here/{}", member); };
  compat::store_set(store, key(rank), "1");
  // Answers at once; but it also gives the connection a time limit for the answers below.
  store.wait({key(rank)}, std::max<milliseconds>(deadline.remaining(), seconds(1)));
  std::vector<std::string> missing;
  for (int member = 0; member < size; ++member) missing.push_back(key(member));
  while (!missing.empty()) {
    if (store.check({missing.back()})) {
      missing.pop_back();
      continue;
    }
    if (deadline.passed()) {
      std::erase_if(missing, [&](const std::string& other) { return store.check({other}); });
      if (missing.empty()) return;
      std::sort(missing.begin(), missing.end());
      std::string ranks;
      for (const std::string& other : missing) ranks += (ranks.empty() ? "" : ", ") + other.substr(other.find('/') + 1);
      throw error(Code::kUnavailable, "{} of {} ranks of group '{}' did not come to the store at {} in time: rank {}; see their logs",
                  missing.size(), size, group, network.store_address, ranks);
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

// An operation outside c10d whose failure ends the group all the same.
class HostWork : public Work {
 public:
  HostWork(std::shared_ptr<C10dGroup> group, WorkPtr inner) : group_(std::move(group)), inner_(std::move(inner)) {}
  void wait(Deadline deadline) override {
    try {
      inner_->wait(deadline);
    } catch (const Error& e) {
      group_->fail(e);
    }
  }
  bool done() override { return group_->dead() || inner_->done(); }

 private:
  const std::shared_ptr<C10dGroup> group_;
  const WorkPtr inner_;
};

class C10dCommunicator : public Communicator {
 public:
  C10dCommunicator(std::shared_ptr<const Network> network, std::shared_ptr<C10dGroup> group, std::string prefix)
      : network_(std::move(network)), group_(std::move(group)), prefix_(std::move(prefix)) {}

  [[nodiscard]] int rank() const override { return group_->rank(); }
  [[nodiscard]] int size() const override { return group_->size(); }
  [[nodiscard]] const std::string& name() const override { return group_->name(); }

  WorkPtr send(const Tensor& tensor, int to, int tag) override {
    const Operation operation = message("send", tensor, to, tag);
    std::vector<at::Tensor> tensors = {tensor};
    return message_work(group_, operation, launch_in(*group_, operation, [&] { return group_->backend().send(tensors, to, tag); }));
  }

  WorkPtr recv(Tensor& tensor, int from, int tag) override {
    const Operation operation = message("recv", tensor, from, tag);
    std::vector<at::Tensor> tensors = {tensor};
    return message_work(group_, operation, launch_in(*group_, operation, [&] { return group_->backend().recv(tensors, from, tag); }));
  }

  WorkPtr all_reduce(Tensor& tensor, Reduce op) override {
    const Operation operation = collective(op == Reduce::kSum ? "all_reduce(sum)" : "all_reduce(max)", tensor, -1);
    if (is_trivial(tensor)) return complete_work();
    for (const auto& memory : shared_) {
      if (op == Reduce::kSum && memory->holds(tensor)) return std::make_unique<HostWork>(group_, memory->all_reduce(tensor));
    }
    // bfloat16 is summed in float32, which Gloo of 1.13 needs and which loses less.
    const bool widened = tensor.scalar_type() == at::kBFloat16;
    const at::Tensor operand = widened ? tensor.to(at::kFloat) : tensor.detach();
    std::vector<at::Tensor> tensors = {operand};
    ::c10d::AllreduceOptions options;
    options.reduceOp = op == Reduce::kSum ? ::c10d::ReduceOp::SUM : ::c10d::ReduceOp::MAX;
    auto work = launch_in(*group_, operation, [&] { return group_->backend().allreduce(tensors, options); });
    std::function<void()> finish;
    if (widened) finish = [target = tensor.detach(), operand] { target.copy_(operand); };
    return collective_work(group_, operation, std::move(work), std::move(finish));
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
    auto memory = size() > 1 ? HostMemory::connect(*this, bytes, deadline) : nullptr;
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

 private:
  // Checks what callers must keep; a Bug otherwise.
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
    operation.tag = tag;
    PENSTOCK_CHECK(0 <= peer && peer < size() && peer != rank() && tag >= 0 && tag < 0x7fffffff, "{}", operation.describe(*group_));
    return operation;
  }

  // All ranks' tensors have the same shape, so all ranks agree.
  [[nodiscard]] bool is_trivial(const Tensor& tensor) const { return size() == 1 || tensor.numel() == 0; }

  const std::shared_ptr<const Network> network_;
  const std::shared_ptr<C10dGroup> group_;
  const std::string prefix_;
  std::vector<std::shared_ptr<HostMemory>> shared_;  // that reduction_buffer() gave out
  int num_splits_ = 0;
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
