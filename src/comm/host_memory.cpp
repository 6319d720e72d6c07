#include "comm/host_memory.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
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

std::string random_name() {
  std::random_device device;
  return fmt::format("/penstock-{:08x}{:08x}", device(), device());
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

std::shared_ptr<HostMemory> HostMemory::connect(const std::string& group, int rank, const std::vector<int>& members, int64_t bytes, const Share& share,
                                                GivenUp given_up) {
  const int64_t size = kHeaderBytes + (bytes + kHeaderBytes - 1) / kHeaderBytes * kHeaderBytes;
  const std::string name = random_name();
  auto mine = Segment::map(name, size, true);
  struct Unlink {
    const std::string& name;
    ~Unlink() { ::shm_unlink(name.c_str()); }
  };
  std::optional<Unlink> named;
  if (mine) {
    named.emplace(name);
    const std::string process = this_process().to_text();
    if (process.size() < sizeof(Segment::Header::process)) std::memcpy(mine->header().process, process.c_str(), process.size() + 1);
  }
  const std::vector<std::string> names = share(mine ? name : "");
  bool well = std::none_of(names.begin(), names.end(), [](const std::string& other) { return other.empty(); });
  std::vector<std::unique_ptr<Segment>> segments;
  size_t own = 0;
  for (const int member : members) {
    if (member == rank) own = segments.size();
    segments.push_back(member == rank ? std::move(mine) : well ? Segment::map(names[static_cast<size_t>(member)], size, false) : nullptr);
    well = well && segments.back() != nullptr;
    if (segments.back()) segments.back()->process = ProcessIdentity::from_text(segments.back()->header().process);
  }
  for (const std::string& other : share(well ? "mapped" : "")) well = well && !other.empty();
  if (!well) return nullptr;
  return std::shared_ptr<HostMemory>(new HostMemory(std::move(segments), static_cast<int>(own), members, group, std::move(given_up)));
}

HostMemory::HostMemory(std::vector<std::unique_ptr<Segment>> segments, int member, std::vector<int> ranks, std::string group, GivenUp given_up)
    : segments_(std::move(segments)), member_(member), ranks_(std::move(ranks)), group_(std::move(group)), given_up_(std::move(given_up)) {}

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

char* HostMemory::data(int member) const { return segments_[static_cast<size_t>(member)]->data(); }

void HostMemory::reduce(const Tensor& tensor, std::span<const int64_t> offsets, Reduce op, bool gather) {
  meet();  // all gradients are here
  const int64_t offset = static_cast<const char*>(tensor.data_ptr()) - own().data();
  const auto size = static_cast<int64_t>(tensor.element_size());
  const int64_t begin = offsets[static_cast<size_t>(member_)], count = offsets[static_cast<size_t>(member_) + 1] - begin;
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
  for (size_t other = 0; other < segments_.size(); ++other) {
    if (static_cast<int>(other) == member_) continue;
    const int64_t begin = offset + offsets[other] * size;
    std::memcpy(own().data() + begin, segments_[other]->data() + begin, static_cast<size_t>((offsets[other + 1] - offsets[other]) * size));
  }
}

void HostMemory::meet() {
  std::atomic<uint32_t>& phase = own().header().phase;
  phase.store(++phase_, std::memory_order_release);
  futex_wake_all(phase);
  for (size_t member = 0; member < segments_.size(); ++member) wait_for(member);
}

void HostMemory::wait_for(size_t member) {
  const Segment::Header& other = segments_[member]->header();
  const std::optional<ProcessIdentity>& process = segments_[member]->process;
  while (true) {
    const uint32_t seen = other.phase.load(std::memory_order_acquire);
    if (static_cast<int32_t>(seen - phase_) >= 0) return;
    if (other.left.load(std::memory_order_acquire) != 0) throw error(Code::kUnavailable, "rank {} of group '{}' has left before it was done", ranks_[member], group_);
    if (futex_wait(other.phase, seen)) continue;
    if (given_up_(ranks_[member])) throw error(Code::kUnavailable, "the group is closed: this rank or another has failed");
    if (process && has_ended(*process, this_process())) {
      throw error(Code::kUnavailable, "rank {} of group '{}' (pid {} on {}) has ended", ranks_[member], group_, process->pid, process->host);
    }
  }
}

}  // namespace penstock::comm
