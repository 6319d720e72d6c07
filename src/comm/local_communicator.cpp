#include "comm/local_communicator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "base/mutex.h"
#include "comm/combine.h"
#include "comm/flat_parts.h"
#include "comm/staged_communicator.h"

namespace penstock::comm {
namespace {

std::string shape_text(const at::Tensor& tensor) {
  return fmt::format("{}[{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes().vec(), ", "));
}

enum class Kind { kAllReduce, kRoundedSum, kReduceScatter, kAllGather, kBroadcast, kBarrier };

// One collective call of one rank.
struct Call {
  Kind kind = Kind::kBarrier;
  Reduce op = Reduce::kSum;
  int root = -1;
  at::Tensor tensor;  // shares the caller's storage; undefined in a barrier
  std::vector<int64_t> offsets = {};  // of the parts
  at::Tensor residual = {};

  [[nodiscard]] std::string describe() const {
    switch (kind) {
      case Kind::kAllReduce: return fmt::format("all_reduce({}) of {}", op == Reduce::kSum ? "sum" : "max", shape_text(tensor));
      case Kind::kRoundedSum: return fmt::format("all_reduce(rounded sum) of {}", shape_text(tensor));
      case Kind::kReduceScatter: return fmt::format("reduce_scatter of {} in parts from [{}]", shape_text(tensor), fmt::join(offsets, ", "));
      case Kind::kAllGather: return fmt::format("all_gather of {} in parts from [{}]", shape_text(tensor), fmt::join(offsets, ", "));
      case Kind::kBroadcast: return fmt::format("broadcast of {} from rank {}", shape_text(tensor), root);
      case Kind::kBarrier: break;
    }
    return "barrier";
  }
};

// What every rank gets. Deterministic: rank order, bfloat16 in float32.
at::Tensor compute(const std::vector<Call>& calls) {
  const Call& first = calls.front();
  if (first.kind == Kind::kBarrier) return {};
  if (first.kind == Kind::kBroadcast) return calls[static_cast<size_t>(first.root)].tensor.clone();
  if (first.kind == Kind::kAllGather) {
    std::vector<at::Tensor> parts;
    for (size_t rank = 0; rank < calls.size(); ++rank) {
      parts.push_back(calls[rank].tensor.view(-1).slice(0, first.offsets[rank], first.offsets[rank + 1]));
    }
    return at::cat(parts).view(first.tensor.sizes());
  }
  const at::ScalarType dtype = first.tensor.scalar_type();
  const at::ScalarType wide = dtype == at::kBFloat16 ? at::kFloat : dtype;
  at::Tensor result = first.tensor.to(wide, /*non_blocking=*/false, /*copy=*/true);
  for (size_t rank = 1; rank < calls.size(); ++rank) {
    const at::Tensor other = calls[rank].tensor.to(wide);
    if (first.op == Reduce::kSum) {
      result.add_(other);
    } else {
      result = at::maximum(result, other);
    }
  }
  return result.to(dtype);
}

struct Collective {
  std::vector<Call> calls;  // by rank
  std::vector<bool> called;
  int num_called = 0;
  bool complete = false;
  at::Tensor result;
  int num_collected = 0;
};

// Messages of one (from, to, tag): the i-th send meets the i-th receive.
struct Mailbox {
  uint64_t num_sent = 0;
  uint64_t num_received = 0;
  std::map<uint64_t, at::Tensor> messages;
};

struct Group {
  std::string name;
  int size = 0;
  std::optional<Error> dead;
  std::map<std::tuple<int, int, int>, Mailbox> mailboxes;
  std::map<uint64_t, Collective> collectives;  // by the number of the call
};

std::shared_ptr<Group> make_group(const std::string& name, int size) {
  auto group = std::make_shared<Group>();
  group->name = name;
  group->size = size;
  return group;
}

// All state of the ranks, under one lock: tests have few ranks.
struct Hub {
  Mutex mutex;
  CondVar changed;
  std::optional<Error> poison GUARDED_BY(mutex);
  std::map<std::string, std::shared_ptr<Group>> groups GUARDED_BY(mutex);  // by path: "world/0.pipe[1]"

  void throw_if_dead(const Group& group) REQUIRES(mutex) {
    if (poison) throw *poison;
    if (group.dead) throw *group.dead;
  }
  // The first error stays.
  [[noreturn]] void fail(Group& group, Error failure) REQUIRES(mutex) {
    if (!group.dead) group.dead = std::move(failure);
    changed.notify_all();
    throw *group.dead;
  }
};

struct Place {
  std::shared_ptr<Hub> hub;
  std::shared_ptr<Group> group;
  int rank = 0;

  [[nodiscard]] std::string describe() const { return fmt::format("in group '{}' (this is its rank {} of {})", group->name, rank, group->size); }
};

class CompleteWork : public Work {
 public:
  void wait(Deadline /*deadline*/) override {}
  bool done() override { return true; }
};

class RecvWork : public Work {
 public:
  RecvWork(Place place, at::Tensor target, int from, int tag, uint64_t number)
      : place_(std::move(place)), target_(std::move(target)), from_(from), tag_(tag), number_(number) {}

  void wait(Deadline deadline) override {
    if (finished_) return;
    const at::Tensor message = take(deadline);
    const at::NoGradGuard no_grad;
    target_.copy_(message);
    finished_ = true;
  }

  bool done() override {
    MutexLock lock(place_.hub->mutex);
    return finished_ || place_.hub->poison || place_.group->dead || mailbox().messages.contains(number_);
  }

 private:
  Mailbox& mailbox() { return place_.group->mailboxes[{from_, place_.rank, tag_}]; }

  [[nodiscard]] std::string describe() const {
    return fmt::format("recv of {} from rank {}, tag {}, {}", shape_text(target_), from_, tag_, place_.describe());
  }

  at::Tensor take(Deadline deadline) {
    Hub& hub = *place_.hub;
    MutexLock lock(hub.mutex);
    for (;;) {
      hub.throw_if_dead(*place_.group);
      auto& messages = mailbox().messages;
      if (const auto found = messages.find(number_); found != messages.end()) {
        at::Tensor message = std::move(found->second);
        messages.erase(found);
        if (message.sizes() != target_.sizes() || message.scalar_type() != target_.scalar_type()) {
          hub.fail(*place_.group, error(Code::kInvalidArgument, "{}: the message is {}", describe(), shape_text(message)));
        }
        return message;
      }
      if (deadline.passed()) {
        hub.fail(*place_.group, error(Code::kDeadlineExceeded, "{} was not complete by its deadline; nothing was sent", describe()));
      }
      hub.changed.wait(hub.mutex, deadline);
    }
  }

  const Place place_;
  at::Tensor target_;
  const int from_;
  const int tag_;
  const uint64_t number_;
  bool finished_ = false;
};

class CollectiveWork : public Work {
 public:
  CollectiveWork(Place place, Call call, uint64_t number) : place_(std::move(place)), call_(std::move(call)), number_(number) {}

  void wait(Deadline deadline) override {
    if (finished_) return;
    at::Tensor result = collect(deadline);
    const at::NoGradGuard no_grad;
    if (call_.kind == Kind::kRoundedSum) keep_residual(result);
    if (result.defined()) own_part(call_.tensor).copy_(own_part(result));
    finished_ = true;
  }

  bool done() override {
    MutexLock lock(place_.hub->mutex);
    return finished_ || place_.hub->poison || place_.group->dead || place_.group->collectives[number_].complete;
  }

 private:
  // What this rank gets of a tensor.
  at::Tensor own_part(const at::Tensor& tensor) const {
    if (call_.kind != Kind::kReduceScatter) return tensor;
    const auto rank = static_cast<size_t>(place_.rank);
    return tensor.view(-1).slice(0, call_.offsets[rank], call_.offsets[rank + 1]);
  }

  // Rounds the sums; what this rank's part of them loses is this rank's to remember.
  void keep_residual(at::Tensor& sum) const {
    const at::Tensor rounded = sum.to(at::kBFloat16).to(at::kFloat);
    const auto rank = static_cast<size_t>(place_.rank);
    const auto part = [&](const at::Tensor& tensor) { return tensor.view(-1).slice(0, call_.offsets[rank], call_.offsets[rank + 1]); };
    part(call_.residual).add_((part(sum) - part(rounded)).nan_to_num_(0, 0, 0));  // as combine() does
    sum = rounded;
  }

  at::Tensor collect(Deadline deadline) {
    Hub& hub = *place_.hub;
    MutexLock lock(hub.mutex);
    for (;;) {
      hub.throw_if_dead(*place_.group);
      Collective& collective = place_.group->collectives[number_];
      if (collective.complete) {
        at::Tensor result = collective.result;
        if (++collective.num_collected == place_.group->size) place_.group->collectives.erase(number_);
        return result;
      }
      if (deadline.passed()) {
        std::vector<int> missing;
        for (int rank = 0; rank < place_.group->size; ++rank) {
          if (!collective.called[static_cast<size_t>(rank)]) missing.push_back(rank);
        }
        hub.fail(*place_.group, error(Code::kDeadlineExceeded, "{} {} was not complete by its deadline; not called by rank {}",
                                      call_.describe(), place_.describe(), fmt::join(missing, ", ")));
      }
      hub.changed.wait(hub.mutex, deadline);
    }
  }

  const Place place_;
  Call call_;
  const uint64_t number_;
  bool finished_ = false;
};

class LocalCommunicator : public Communicator {
 public:
  LocalCommunicator(Place place, std::string path) : place_(std::move(place)), path_(std::move(path)) {}

  [[nodiscard]] int rank() const override { return place_.rank; }
  [[nodiscard]] int size() const override { return place_.group->size; }
  [[nodiscard]] const std::string& name() const override { return place_.group->name; }

  WorkPtr send(const Tensor& tensor, int to, int tag) override {
    check_message(tensor, to, tag);
    at::Tensor copy = tensor.detach().clone();
    Hub& hub = *place_.hub;
    MutexLock lock(hub.mutex);
    hub.throw_if_dead(*place_.group);
    Mailbox& mailbox = place_.group->mailboxes[{rank(), to, tag}];
    mailbox.messages.emplace(mailbox.num_sent++, std::move(copy));
    hub.changed.notify_all();
    return std::make_unique<CompleteWork>();
  }

  WorkPtr recv(Tensor& tensor, int from, int tag) override {
    check_message(tensor, from, tag);
    Hub& hub = *place_.hub;
    MutexLock lock(hub.mutex);
    hub.throw_if_dead(*place_.group);
    const uint64_t number = place_.group->mailboxes[{from, rank(), tag}].num_received++;
    return std::make_unique<RecvWork>(place_, tensor, from, tag, number);
  }

  WorkPtr all_reduce(Tensor& tensor, Reduce op) override { return call({.kind = Kind::kAllReduce, .op = op, .tensor = check(tensor)}); }
  WorkPtr broadcast(Tensor& tensor, int root) override {
    PENSTOCK_CHECK(0 <= root && root < size(), "broadcast from rank {} {}", root, place_.describe());
    return call({.kind = Kind::kBroadcast, .root = root, .tensor = check(tensor)});
  }
  WorkPtr barrier() override { return call({}); }
  WorkPtr all_reduce_rounded(Tensor& tensor, Tensor& residual) override {
    PENSTOCK_CHECK(tensor.scalar_type() == at::kFloat && residual.scalar_type() == at::kFloat && residual.is_contiguous() && residual.numel() == tensor.numel(),
                   "{} and a residual of {}", shape_text(tensor), shape_text(residual));
    if (size() == 1) return std::make_unique<CompleteWork>();
    const at::Tensor rounded = at::empty(tensor.sizes(), at::kBFloat16);
    round_with_residual(check(tensor), residual, rounded);
    const at::NoGradGuard no_grad;
    tensor.copy_(rounded);
    return call({.kind = Kind::kRoundedSum, .tensor = tensor, .offsets = even_parts(tensor.numel(), size()), .residual = residual});
  }
  WorkPtr reduce_scatter(Tensor& flat, std::span<const int64_t> offsets) override { return call_in_parts(Kind::kReduceScatter, flat, offsets); }
  WorkPtr all_gather(Tensor& flat, std::span<const int64_t> offsets) override { return call_in_parts(Kind::kAllGather, flat, offsets); }

  std::unique_ptr<Communicator> split(std::span<const int> ranks, const std::string& name, Deadline /*deadline*/) override {
    PENSTOCK_CHECK(!ranks.empty() && std::is_sorted(ranks.begin(), ranks.end(), std::less_equal<>()) && ranks.front() >= 0 && ranks.back() < size(),
                   "split '{}' of a group of {} into [{}]", name, size(), fmt::join(ranks, ", "));
    const std::string path = fmt::format("{}/{}.{}", path_, num_splits_++, name);  // counted alike on every rank
    const auto position = std::find(ranks.begin(), ranks.end(), rank());
    Hub& hub = *place_.hub;
    MutexLock lock(hub.mutex);
    hub.throw_if_dead(*place_.group);
    if (position == ranks.end()) return nullptr;
    auto& group = hub.groups[path];
    if (!group) group = make_group(name, static_cast<int>(ranks.size()));
    return std::make_unique<LocalCommunicator>(Place{place_.hub, group, static_cast<int>(position - ranks.begin())}, path);
  }

  void poison(const Error& failure) {
    Hub& hub = *place_.hub;
    MutexLock lock(hub.mutex);
    if (!hub.poison) hub.poison = failure;
    hub.changed.notify_all();
  }

 private:
  static const Tensor& check(const Tensor& tensor) {
    static constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kLong, at::kInt, at::kByte};
    PENSTOCK_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), "{}", shape_text(tensor));
    PENSTOCK_CHECK(std::find(std::begin(kDtypes), std::end(kDtypes), tensor.scalar_type()) != std::end(kDtypes), "{}", shape_text(tensor));
    return tensor;
  }
  void check_message(const Tensor& tensor, int peer, int tag) const {
    check(tensor);
    PENSTOCK_CHECK(0 <= peer && peer < size() && peer != rank() && tag >= 0, "peer {}, tag {}, {}", peer, tag, place_.describe());
  }

  WorkPtr call_in_parts(Kind kind, const Tensor& flat, std::span<const int64_t> offsets) {
    const std::string wrong = wrong_parts(offsets, flat.numel(), size());
    PENSTOCK_CHECK(wrong.empty(), "{} {}", wrong, place_.describe());
    return call({.kind = kind, .tensor = check(flat), .offsets = {offsets.begin(), offsets.end()}});
  }

  WorkPtr call(Call mine) {
    const uint64_t number = num_calls_++;
    Collective* complete = enter(number, mine);
    if (complete != nullptr) {  // the last rank computes, outside the lock: nobody else touches a collective that all have called
      const at::NoGradGuard no_grad;
      at::Tensor result = compute(complete->calls);
      MutexLock lock(place_.hub->mutex);
      complete->result = std::move(result);
      complete->complete = true;
      place_.hub->changed.notify_all();
    }
    return std::make_unique<CollectiveWork>(place_, std::move(mine), number);
  }

  // Adds this rank's call; the collective when it was the last one.
  Collective* enter(uint64_t number, const Call& mine) {
    Hub& hub = *place_.hub;
    MutexLock lock(hub.mutex);
    hub.throw_if_dead(*place_.group);
    Collective& collective = place_.group->collectives[number];
    collective.calls.resize(static_cast<size_t>(size()));
    collective.called.resize(static_cast<size_t>(size()));
    for (int other = 0; other < size(); ++other) {
      if (!collective.called[static_cast<size_t>(other)]) continue;
      const std::string theirs = collective.calls[static_cast<size_t>(other)].describe();
      if (theirs != mine.describe()) {
        hub.fail(*place_.group, error(Code::kInvalidArgument, "{} {}, while rank {} calls {}", mine.describe(), place_.describe(), other, theirs));
      }
    }
    collective.calls[static_cast<size_t>(rank())] = mine;
    collective.called[static_cast<size_t>(rank())] = true;
    return ++collective.num_called == size() ? &collective : nullptr;
  }

  const Place place_;
  const std::string path_;
  uint64_t num_calls_ = 0;
  int num_splits_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_local_group(int size) {
  PENSTOCK_CHECK(size >= 1, "a group of {} ranks", size);
  const auto hub = std::make_shared<Hub>();
  const auto world = make_group("world", size);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank) ranks.push_back(make_staged(std::make_unique<LocalCommunicator>(Place{hub, world, rank}, "world")));
  return ranks;
}

void poison_local_group(Communicator& member, const Error& failure) {
  auto* local = dynamic_cast<LocalCommunicator*>(&unstaged(member));
  PENSTOCK_CHECK(local != nullptr, "group '{}' is not local", member.name());
  local->poison(failure);
}

}  // namespace penstock::comm
