#include "comm/host_memory.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <random>

#include "base/error.h"
#include "comm/combine.h"
#include "comm/process_identity.h"

namespace penstock::comm {
namespace {

constexpr int64_t kHeaderBytes = 4096;
constexpr milliseconds kLook{200};  // how often a waiting thread looks whether it shall stop, and whether the other is still there

std::string name_of(int64_t token) { return fmt::format("/penstock-{:016x}", static_cast<uint64_t>(token)); }

int64_t random_token() {
  std::random_device device;
  return static_cast<int64_t>((uint64_t{device()} << 32) ^ device());
}

// False when nothing came for as long as kLook.
bool futex_wait(const std::atomic<uint32_t>& word, uint32_t seen) {
  const timespec timeout{0, std::chrono::nanoseconds(kLook).count()};
  return ::syscall(SYS_futex, &word, FUTEX_WAIT, seen, &timeout, nullptr, 0) == 0 || errno != ETIMEDOUT;
}

void futex_wake_all(const std::atomic<uint32_t>& word) { ::syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0); }

}  // namespace

// One rank's memory: how far it is, and its data.
struct HostMemory::Segment {
  struct Header {
    std::atomic<uint32_t> phase;
    std::atomic<uint32_t> left;  // 1: will meet no more
    char process[1024];          // its ProcessIdentity as text
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

  void* const bytes;
  const int64_t size;
  std::optional<ProcessIdentity> process;  // whose it is, as far as known
};

std::shared_ptr<HostMemory> HostMemory::connect(Communicator& group, int64_t bytes, std::function<bool()> given_up, Deadline deadline) {
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
  if (own) {
    named.emplace(name_of(token));
    const std::string process = this_process().to_text();
    if (process.size() < sizeof(Segment::Header::process)) std::memcpy(own->header().process, process.c_str(), process.size() + 1);
  }
  if (!all_well(own != nullptr)) return nullptr;

  at::Tensor tokens = at::zeros({group.size()}, at::kLong);
  tokens.data_ptr<int64_t>()[group.rank()] = token;
  group.all_reduce(tokens, Reduce::kSum)->wait(deadline);
  std::vector<std::unique_ptr<Segment>> segments;
  bool well = true;
  for (int rank = 0; rank < group.size(); ++rank) {
    segments.push_back(rank == group.rank() ? std::move(own) : Segment::map(name_of(tokens.data_ptr<int64_t>()[rank]), size, false));
    well = well && segments.back() != nullptr;
    if (segments.back()) segments.back()->process = ProcessIdentity::from_text(segments.back()->header().process);
  }
  if (!all_well(well)) return nullptr;
  return std::shared_ptr<HostMemory>(new HostMemory(std::move(segments), group.rank(), group.name(), std::move(given_up)));
}

HostMemory::HostMemory(std::vector<std::unique_ptr<Segment>> segments, int rank, std::string name, std::function<bool()> given_up)
    : segments_(std::move(segments)), rank_(rank), name_(std::move(name)), given_up_(std::move(given_up)) {}

HostMemory::~HostMemory() { leave(); }

void HostMemory::leave() {
  own().header().left = 1;
  futex_wake_all(own().header().phase);
}

Tensor HostMemory::buffer() {
  return at::from_blob(own().data(), {own().size - kHeaderBytes}, [keep = shared_from_this()](void* /*data*/) {}, at::TensorOptions(at::kByte));
}

bool HostMemory::holds(const Tensor& tensor) const {
  const auto* first = static_cast<const char*>(tensor.data_ptr());
  return first >= own().data() && first + tensor.nbytes() <= static_cast<const char*>(own().bytes) + own().size;
}

void HostMemory::reduce(const Tensor& tensor, std::span<const int64_t> offsets, Reduce op, bool gather) {
  meet();  // all gradients are here
  const int64_t offset = static_cast<const char*>(tensor.data_ptr()) - own().data();
  const auto size = static_cast<int64_t>(tensor.element_size());
  const int64_t begin = offsets[static_cast<size_t>(rank_)], count = offsets[static_cast<size_t>(rank_) + 1] - begin;
  std::vector<const void*> sources;
  for (const auto& segment : segments_) sources.push_back(segment->data() + offset + begin * size);
  combine(sources, own().data() + offset + begin * size, count, tensor.scalar_type(), op);
  meet();  // all parts are summed
  if (!gather) return;
  copy_other_parts(tensor, offsets);
  meet();  // all have copied: the memory is its owner's again
}

void HostMemory::gather(const Tensor& tensor, std::span<const int64_t> offsets) {
  meet();
  copy_other_parts(tensor, offsets);
  meet();
}

void HostMemory::copy_other_parts(const Tensor& tensor, std::span<const int64_t> offsets) {
  const int64_t offset = static_cast<const char*>(tensor.data_ptr()) - own().data();
  const auto size = static_cast<int64_t>(tensor.element_size());
  for (size_t rank = 0; rank < segments_.size(); ++rank) {
    if (static_cast<int>(rank) == rank_) continue;
    const int64_t begin = offset + offsets[rank] * size;
    std::memcpy(own().data() + begin, segments_[rank]->data() + begin, static_cast<size_t>((offsets[rank + 1] - offsets[rank]) * size));
  }
}

// Waits until every rank has come as far.
void HostMemory::meet() {
  std::atomic<uint32_t>& phase = own().header().phase;
  phase.store(++phase_, std::memory_order_release);
  futex_wake_all(phase);
  for (size_t rank = 0; rank < segments_.size(); ++rank) wait_for(rank);
}

void HostMemory::wait_for(size_t rank) {
  const Segment::Header& other = segments_[rank]->header();
  const std::optional<ProcessIdentity>& process = segments_[rank]->process;
  while (true) {
    const uint32_t seen = other.phase.load(std::memory_order_acquire);
    if (static_cast<int32_t>(seen - phase_) >= 0) return;
    if (given_up_() || own().header().left != 0) throw error(Code::kCancelled, "given up in group '{}'", name_);
    if (other.left.load(std::memory_order_acquire) != 0) throw error(Code::kUnavailable, "rank {} of group '{}' has left before it was done", rank, name_);
    if (!futex_wait(other.phase, seen) && process && has_ended(*process, this_process())) {
      throw error(Code::kUnavailable, "rank {} of group '{}' (pid {} on {}) has ended", rank, name_, process->pid, process->host);
    }
  }
}

}  // namespace penstock::comm
