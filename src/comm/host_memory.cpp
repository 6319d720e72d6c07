#include "comm/host_memory.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "base/error.h"

namespace penstock::comm {
namespace {

constexpr int64_t kHeaderBytes = 4096;
constexpr int64_t kAlignment = 16;             // elements of a part: a cache line
constexpr int64_t kBlock = 8192;               // elements summed at a time: stays in the first-level cache
constexpr milliseconds kLook{200};             // how often a waiting thread looks whether it shall stop

std::string name_of(int64_t token) { return fmt::format("/penstock-{:016x}", static_cast<uint64_t>(token)); }

int64_t random_token() {
  std::random_device device;
  return static_cast<int64_t>((uint64_t{device()} << 32) ^ device());
}

void futex_wait(const std::atomic<uint32_t>& word, uint32_t seen) {
  const timespec timeout{0, std::chrono::nanoseconds(kLook).count()};
  ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

void futex_wake_all(const std::atomic<uint32_t>& word) { ::syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0); }

}  // namespace

// One rank's memory: how far it is, and its data.
struct HostMemory::Segment {
  struct Header {
    std::atomic<uint32_t> phase;
    std::atomic<uint32_t> left;  // 1: will meet no more
  };
  static_assert(std::atomic<uint32_t>::is_always_lock_free);

  Segment(void* mapped, int64_t size) : bytes(mapped), size(size) {}
  ~Segment() { ::munmap(bytes, static_cast<size_t>(size)); }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  // nullptr when it cannot be.
  static std::unique_ptr<Segment> map(const std::string& name, int64_t size, bool create) {
    const int fd = ::shm_open(name.c_str(), create ? O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC : O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) return nullptr;
    // Reserves the pages: a file system that is full says so here, and not by a signal later.
    const bool there = !create || ::posix_fallocate(fd, 0, size) == 0;
    void* mapped = there ? ::mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    ::close(fd);
    if (mapped == MAP_FAILED && create) ::shm_unlink(name.c_str());
    return mapped == MAP_FAILED ? nullptr : std::make_unique<Segment>(mapped, size);
  }

  [[nodiscard]] Header& header() const { return *static_cast<Header*>(bytes); }
  [[nodiscard]] char* data() const { return static_cast<char*>(bytes) + kHeaderBytes; }
  [[nodiscard]] float* floats() const { return reinterpret_cast<float*>(data()); }

  void* const bytes;
  const int64_t size;
};

class HostMemory::Pending {
 public:
  void end(std::optional<Error> failure) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    ended_ = true;
    failure_ = std::move(failure);
    changed_.notify_all();
  }
  // False at the deadline.
  bool wait(Deadline deadline) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!ended_) {
      if (!changed_.wait(mutex_, deadline) && !ended_) return false;
    }
    if (failure_) throw *failure_;
    return true;
  }
  [[nodiscard]] bool ended() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return ended_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool ended_ GUARDED_BY(mutex_) = false;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
};

class HostMemory::PendingWork : public Work {
 public:
  PendingWork(std::shared_ptr<Pending> pending, std::shared_ptr<HostMemory> memory, int64_t count) : pending_(std::move(pending)), memory_(std::move(memory)), count_(count) {}
  void wait(Deadline deadline) override {
    if (pending_->wait(deadline)) return;
    throw error(Code::kDeadlineExceeded, "all_reduce(sum) of {} x Float through shared memory in group '{}' (this is its rank {} of {}): another rank did not come in time", count_,
                memory_->name_, memory_->rank_, memory_->segments_.size());
  }
  bool done() override { return pending_->ended(); }

 private:
  const std::shared_ptr<Pending> pending_;
  const std::shared_ptr<HostMemory> memory_;
  const int64_t count_;
};

std::shared_ptr<HostMemory> HostMemory::connect(Communicator& group, int64_t bytes, Deadline deadline) {
  const int64_t size = kHeaderBytes + (bytes + kHeaderBytes - 1) / kHeaderBytes * kHeaderBytes;
  const auto all_well = [&](bool well) {
    at::Tensor failures = at::full({1}, well ? 0 : 1, at::kLong);
    group.all_reduce(failures, Reduce::kSum)->wait(deadline);
    return failures.item<int64_t>() == 0;
  };
  const int64_t token = random_token();
  auto own = Segment::map(name_of(token), size, true);
  struct Unlink {
    std::string name;
    ~Unlink() { ::shm_unlink(name.c_str()); }
  };
  std::optional<Unlink> named;
  if (own) named.emplace(name_of(token));
  if (!all_well(own != nullptr)) return nullptr;

  at::Tensor tokens = at::zeros({group.size()}, at::kLong);
  tokens.data_ptr<int64_t>()[group.rank()] = token;
  group.all_reduce(tokens, Reduce::kSum)->wait(deadline);
  std::vector<std::unique_ptr<Segment>> segments;
  bool well = true;
  for (int rank = 0; rank < group.size(); ++rank) {
    segments.push_back(rank == group.rank() ? std::move(own) : Segment::map(name_of(tokens.data_ptr<int64_t>()[rank]), size, false));
    well = well && segments.back() != nullptr;
  }
  if (!all_well(well)) return nullptr;
  return std::shared_ptr<HostMemory>(new HostMemory(std::move(segments), group.rank(), group.name()));
}

HostMemory::HostMemory(std::vector<std::unique_ptr<Segment>> segments, int rank, std::string name)
    : segments_(std::move(segments)), rank_(rank), name_(std::move(name)), thread_([this] { run(); }) {}

HostMemory::~HostMemory() {
  Segment::Header& own = segments_[static_cast<size_t>(rank_)]->header();
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    own.left = 1;
    changed_.notify_all();
  }
  futex_wake_all(own.phase);
  thread_.join();
}

Tensor HostMemory::buffer() {
  const Segment& own = *segments_[static_cast<size_t>(rank_)];
  return at::from_blob(own.data(), {own.size - kHeaderBytes}, [keep = shared_from_this()](void* /*data*/) {}, at::TensorOptions(at::kByte));
}

bool HostMemory::holds(const Tensor& tensor) const {
  const Segment& own = *segments_[static_cast<size_t>(rank_)];
  const auto* first = static_cast<const char*>(tensor.data_ptr());
  return tensor.scalar_type() == at::kFloat && first >= own.data() && first + tensor.nbytes() <= static_cast<const char*>(own.bytes) + own.size;
}

WorkPtr HostMemory::all_reduce(const Tensor& tensor) {
  PENSTOCK_CHECK(holds(tensor) && tensor.is_contiguous(), "a tensor outside the shared memory of {}", name_);
  auto pending = std::make_shared<Pending>();
  MutexLock lock(mutex_);
  if (failed_) throw *failed_;
  queue_.push_back({tensor.data_ptr<float>() - segments_[static_cast<size_t>(rank_)]->floats(), tensor.numel(), pending});
  changed_.notify_all();
  return std::make_unique<PendingWork>(std::move(pending), shared_from_this(), tensor.numel());
}

void HostMemory::run() {
  while (true) {
    Operation operation;
    {
      MutexLock lock(mutex_);
      while (queue_.empty() && !stopping_) changed_.wait(mutex_, Deadline::never());
      if (queue_.empty()) return;
      operation = std::move(queue_.front());
      queue_.pop_front();
    }
    std::optional<Error> failure;
    {
      MutexLock lock(mutex_);
      failure = failed_;
    }
    try {
      if (!failure) reduce(operation);
    } catch (const Error& e) {
      failure = e;
      MutexLock lock(mutex_);
      failed_ = e;
    }
    operation.pending->end(std::move(failure));
  }
}

void HostMemory::reduce(const Operation& operation) {
  meet();  // all gradients are here
  sum_own_part(operation);
  meet();  // all parts are summed
  copy_other_parts(operation);
  meet();  // all have copied: the memory is its owner's again
}

// Waits until every rank has come as far.
void HostMemory::meet() {
  std::atomic<uint32_t>& own = segments_[static_cast<size_t>(rank_)]->header().phase;
  own.store(++phase_, std::memory_order_release);
  futex_wake_all(own);
  for (size_t rank = 0; rank < segments_.size(); ++rank) {
    const Segment::Header& other = segments_[rank]->header();
    while (true) {
      const uint32_t seen = other.phase.load(std::memory_order_acquire);
      if (static_cast<int32_t>(seen - phase_) >= 0) break;
      if (stopping_) throw error(Code::kCancelled, "group '{}': an all_reduce through shared memory was given up", name_);
      if (other.left.load(std::memory_order_acquire) != 0) throw error(Code::kUnavailable, "group '{}': rank {} has left before an all_reduce was done", name_, rank);
      futex_wait(other.phase, seen);
    }
  }
}

std::pair<int64_t, int64_t> HostMemory::part(const Operation& operation, int rank) const {
  const auto ranks = static_cast<int64_t>(segments_.size());
  const int64_t each = (operation.count + ranks * kAlignment - 1) / (ranks * kAlignment) * kAlignment;
  const int64_t begin = std::min(operation.count, rank * each);
  return {operation.first + begin, std::min(operation.count, begin + each) - begin};
}

void HostMemory::sum_own_part(const Operation& operation) {
  const auto [first, count] = part(operation, rank_);
  float* target = segments_[static_cast<size_t>(rank_)]->floats() + first;
  alignas(64) float sums[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    std::memcpy(sums, segments_[0]->floats() + first + begin, static_cast<size_t>(n) * sizeof(float));
    for (size_t rank = 1; rank < segments_.size(); ++rank) {
      const float* other = segments_[rank]->floats() + first + begin;
      for (int64_t i = 0; i < n; ++i) sums[i] += other[i];
    }
    std::memcpy(target + begin, sums, static_cast<size_t>(n) * sizeof(float));
  }
}

void HostMemory::copy_other_parts(const Operation& operation) {
  float* own = segments_[static_cast<size_t>(rank_)]->floats();
  for (size_t rank = 0; rank < segments_.size(); ++rank) {
    if (static_cast<int>(rank) == rank_) continue;
    const auto [first, count] = part(operation, static_cast<int>(rank));
    std::memcpy(own + first, segments_[rank]->floats() + first, static_cast<size_t>(count) * sizeof(float));
  }
}

}  // namespace penstock::comm
