#include "comm/c10d_communicator.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "comm/c10d_network.h"
#include "comm/c10d_work.h"
#include "comm/flat_parts.h"
#include "comm/group_collectives.h"
#include "comm/operation_queue.h"
#include "comm/staged_communicator.h"

namespace penstock::comm {
namespace {

constexpr int kCollectiveTag = 0x7ffffff0;  // messages of the group's own thread; those of callers have smaller tags

// Brings the ranks of the group together; `prefix` is the same on all of them and used once.
struct Membership {
  std::shared_ptr<C10dGroup> group;
  HostLayout hosts;
};

Membership join_group(const std::shared_ptr<const Network>& network, const std::string& prefix, const std::string& name, int rank, int size, Deadline deadline,
                      const std::string& limit = "in time") {
  if (size == 1) return {std::make_shared<C10dGroup>(name, rank, size, network, compat::StorePtr()), HostLayout::of({this_host()})};
  const compat::StorePtr store = compat::make_prefix_store(prefix, network->store);
  try {
    const std::string host = network->options.host.empty() ? this_host() : network->options.host;
    const auto hosts = exchange_texts({.store = *store, .key = "here", .group = name, .store_address = network->store_address, .rank = rank, .size = size, .deadline = deadline,
                                        .limit = limit, .speaks = rank == 0, .given_up = {}}, host);
    return {std::make_shared<C10dGroup>(name, rank, size, network, store), HostLayout::of(hosts)};
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    throw error(Code::kUnavailable, "rank {} of {} could not meet its peers of group '{}' in the store at {}: {}", rank, size, name, network->store_address,
                compat::error_text(std::current_exception()));
  }
}

class C10dCommunicator : public Communicator {
 public:
  C10dCommunicator(std::shared_ptr<const Network> network, Membership membership, std::string prefix)
      : network_(std::move(network)),
        group_(std::move(membership.group)),
        prefix_(std::move(prefix)),
        collectives_(group_->name(), group_->rank(), std::move(membership.hosts), links(), [this](const std::string& mine) { return share(mine); },
                     [group = group_](int awaited) { return group->given_up(awaited); }) {}

  ~C10dCommunicator() override {
    if (!queue_.idle()) {
      try {
        group_->fail(error(Code::kCancelled, "group '{}' was closed in the middle of a collective", name()));
      } catch (const Error&) {  // what is under way on the queue fails with it
      }
    }
    queue_.stop();
    collectives_.leave();
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
    return post(operation, [this, op, flat = flattened(tensor)] { collectives_.reduce(flat, even_parts(flat.numel(), size()), op, true); });
  }

  WorkPtr reduce_scatter(Tensor& flat, std::span<const int64_t> offsets) override {
    const Operation operation = collective("reduce_scatter(sum)", flat, offsets);
    if (is_trivial(flat)) return complete_work();
    return post(operation, [this, flat = flattened(flat), parts = std::vector(offsets.begin(), offsets.end())] { collectives_.reduce(flat, parts, Reduce::kSum, false); });
  }

  WorkPtr all_gather(Tensor& flat, std::span<const int64_t> offsets) override {
    const Operation operation = collective("all_gather", flat, offsets);
    if (is_trivial(flat)) return complete_work();
    return post(operation, [this, flat = flattened(flat), parts = std::vector(offsets.begin(), offsets.end())] { collectives_.gather(flat, parts); });
  }

  WorkPtr all_reduce_rounded(Tensor& tensor, Tensor& residual) override {
    const Operation operation = collective("all_reduce(rounded sum)", tensor, -1);
    PENSTOCK_CHECK(tensor.scalar_type() == at::kFloat && residual.scalar_type() == at::kFloat && residual.is_contiguous() && residual.numel() == tensor.numel(), "{}",
                   operation.describe(*group_));
    if (is_trivial(tensor)) return complete_work();
    return post(operation, [this, flat = flattened(tensor), memory = flattened(residual)] { collectives_.reduce_rounded(flat, memory); });
  }

  WorkPtr broadcast(Tensor& tensor, int root) override {
    const Operation operation = collective("broadcast", tensor, root);
    PENSTOCK_CHECK(0 <= root && root < size(), "{}", operation.describe(*group_));
    if (is_trivial(tensor)) return complete_work();
    // As bytes: the values do not matter, and Gloo of 1.13 knows no bfloat16.
    return post(operation, [this, root, bytes = flattened(tensor).view(at::kByte)] { collectives_.broadcast(bytes, root); });
  }

  WorkPtr barrier() override {
    group_->throw_if_dead();
    if (size() == 1) return complete_work();
    return post({.name = "barrier"}, [this] {
      const std::vector<int64_t> offsets = even_parts(1, size());
      collectives_.reduce(at::zeros({1}, at::kByte), offsets, Reduce::kMax, true);
    });
  }

  Tensor reduction_buffer(int64_t bytes, Deadline deadline) override {
    group_->throw_if_dead();
    const auto memory = std::make_shared<at::Tensor>();
    if (size() > 1) post({.name = "reduction_buffer"}, [this, bytes, memory] { *memory = collectives_.buffer(bytes); })->wait(deadline);
    return memory->defined() ? *memory : Communicator::reduction_buffer(bytes, deadline);
  }

  std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline deadline) override {
    group_->throw_if_dead();
    PENSTOCK_CHECK(!ranks.empty() && std::is_sorted(ranks.begin(), ranks.end(), std::less_equal<>()) && ranks.front() >= 0 && ranks.back() < size(),
                   "split '{}' of a group of {} into [{}]", name, size(), fmt::join(ranks, ", "));
    const std::string prefix = fmt::format("{}/{}.{}", prefix_, num_splits_++, name);  // counted alike on every rank
    const auto position = std::find(ranks.begin(), ranks.end(), rank());
    if (position == ranks.end()) return nullptr;
    auto membership = join_group(network_, prefix, name, static_cast<int>(position - ranks.begin()), static_cast<int>(ranks.size()), deadline);
    return std::make_unique<C10dCommunicator>(network_, std::move(membership), prefix);
  }

  [[nodiscard]] int64_t bytes_sent() const override { return group_->bytes_sent(); }

 private:
  static at::Tensor flattened(const Tensor& tensor) { return tensor.detach().view(-1); }

  // Runs `run` on the group's own thread, after what was posted before.
  WorkPtr post(const Operation& operation, std::function<void()> run) {
    auto guarded = [this, operation, run = std::move(run)] {
      try {
        current_ = operation.name;
        group_->set_awaited(-1);
        run();
      } catch (const Error& e) {
        group_->fail(error(e.code(), "{}: {}", operation.describe(*group_), e.message()));  // the first error stays
      } catch (const std::exception& e) {
        group_->fail(error(Code::kInternal, "{}: {}", operation.describe(*group_), e.what()));
      }
    };
    auto late = [group = group_, operation] {
      const std::string who = group->awaited() >= 0 ? fmt::format("it waits for rank {}", group->awaited()) : "some rank has not called it";
      group->fail(error(Code::kDeadlineExceeded, "{} was not complete by its deadline; {}", operation.describe(*group), who));
    };
    return queue_.post(std::move(guarded), std::move(late));
  }

  // How the group's own thread sends to its peers.
  GroupCollectives::Links links() {
    const auto part = [this](const char* name, const at::Tensor& tensor, int peer) {
      return Operation{.name = name, .peer = peer, .num_elements = tensor.numel(), .dtype = tensor.scalar_type(), .within = current_, .channel = kCollectiveTag};
    };
    GroupCollectives::Links links;
    links.send = [this, part](const at::Tensor& tensor, int to) { return post_send(part("send", tensor, to), tensor); };
    links.recv = [this, part](at::Tensor& tensor, int from) { return post_recv(part("recv", tensor, from), tensor); };
    links.await = [this](Work& work, int from) {
      group_->set_awaited(from);
      work.wait(operation_deadline());
      group_->set_awaited(-1);
    };
    return links;
  }

  [[nodiscard]] Deadline operation_deadline() const { return Deadline::after(network_->options.operation_timeout); }

  // Every rank's text, by way of the store.
  std::vector<std::string> share(const std::string& mine) {
    try {
      return exchange_texts({.store = group_->store(), .key = fmt::format("share/{}", num_shared_++), .group = name(), .store_address = network_->store_address, .rank = rank(),
                             .size = size(), .deadline = operation_deadline(), .limit = "in time", .speaks = false, .given_up = [this](int awaited) { return group_->given_up(awaited); }}, mine);
    } catch (const Error&) {
      throw;
    } catch (const std::exception&) {
      throw error(Code::kUnavailable, "the store at {} is gone: {}", network_->store_address, compat::error_text(std::current_exception()));
    }
  }

  WorkPtr post_send(const Operation& operation, const Tensor& tensor) {
    group_->count_sent(static_cast<int64_t>(tensor.nbytes()));
    return message_work(group_, operation, group_->links().send(tensor, operation.peer, operation.channel));
  }

  WorkPtr post_recv(const Operation& operation, const Tensor& tensor) { return message_work(group_, operation, group_->links().recv(tensor, operation.peer, operation.channel)); }

  // Checks what callers must keep; a Bug otherwise.
  Operation collective(const char* name, const Tensor& tensor, std::span<const int64_t> offsets) const {
    const std::string wrong = wrong_parts(offsets, tensor.numel(), size());
    PENSTOCK_CHECK(wrong.empty(), "{} in group '{}': {}", name, this->name(), wrong);
    return collective(name, tensor, -1);
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
  int num_splits_ = 0;
  // Of the queue's thread:
  const char* current_ = nullptr;  // the name of its operation
  int num_shared_ = 0;
  GroupCollectives collectives_;
  OperationQueue queue_;  // last: its thread uses the others
};

}  // namespace

std::unique_ptr<Communicator> connect_c10d(const cluster::RankInfo& info, const C10dOptions& options, const std::string& name) {
  PENSTOCK_CHECK(0 <= info.rank && info.rank < info.world_size, "rank {} of {}", info.rank, info.world_size);
  const Deadline deadline = Deadline::after(options.connect_timeout);
  const auto network = open_network(info, options, name, deadline);
  auto membership = join_group(network, name, name, info.rank, info.world_size, deadline, network->connect_limit());
  return make_staged(std::make_unique<C10dCommunicator>(network, std::move(membership), name));
}

}  // namespace penstock::comm
