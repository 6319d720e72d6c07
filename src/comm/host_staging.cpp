#include "comm/host_staging.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "comm/combine.h"

namespace penstock::comm {
namespace {

constexpr int64_t kSmallBytes = 16 << 10;

}  // namespace

// One piece of every part.
struct HostStaging::Round {
  Round(const Tensor& flat, std::span<const int64_t> all_offsets, int num_members)
      : bytes(static_cast<char*>(flat.data_ptr())),
        element(static_cast<int64_t>(flat.element_size())),
        offsets(all_offsets),
        piece_bytes(kBytes / 2 / num_members / 64 * 64),
        piece(piece_bytes / element) {
    for (int member = 0; member < num_members; ++member) longest = std::max(longest, offsets[static_cast<size_t>(member) + 1] - offsets[static_cast<size_t>(member)]);
  }
  // False when nothing is left.
  [[nodiscard]] bool there() const { return done < longest; }
  void next() { done += piece; }
  [[nodiscard]] char* begin(int member) const { return bytes + std::min(offsets[static_cast<size_t>(member)] + done, offsets[static_cast<size_t>(member) + 1]) * element; }
  [[nodiscard]] int64_t count(int member) const {
    return std::clamp<int64_t>(offsets[static_cast<size_t>(member) + 1] - offsets[static_cast<size_t>(member)] - done, 0, piece);
  }
  [[nodiscard]] size_t size(int member) const { return static_cast<size_t>(count(member) * element); }
  [[nodiscard]] int64_t place(int member) const { return member * piece_bytes; }  // in a half

  char* const bytes;
  const int64_t element;
  const std::span<const int64_t> offsets;
  const int64_t piece_bytes, piece;
  int64_t longest = 0, done = 0;
};

void HostStaging::reduce(const Tensor& flat, std::span<const int64_t> offsets, Reduce op, bool gather) {
  if (gather && static_cast<int64_t>(flat.nbytes()) <= kSmallBytes) return reduce_small(flat, op);
  const int own = memory_->member(), size = memory_->size();
  for (Round round(flat, offsets, size); round.there(); round.next()) {
    turn();
    std::vector<const void*> sources;
    for (int member = 0; member < size; ++member) {
      std::memcpy(slot(own, round.place(member)), round.begin(member), round.size(member));
      sources.push_back(slot(member, round.place(own)));
    }
    memory_->meet();
    combine(sources, gather ? slot(own, round.place(own)) : round.begin(own), round.count(own), flat.scalar_type(), op);
    if (!gather) continue;
    memory_->meet();
    for (int member = 0; member < size; ++member) std::memcpy(round.begin(member), slot(member, round.place(member)), round.size(member));
  }
}

void HostStaging::reduce_small(const Tensor& flat, Reduce op) {
  turn();
  std::vector<const void*> sources;
  for (int member = 0; member < memory_->size(); ++member) sources.push_back(slot(member, 0));
  std::memcpy(slot(memory_->member(), 0), flat.data_ptr(), flat.nbytes());
  memory_->meet();
  combine(sources, flat.data_ptr(), flat.numel(), flat.scalar_type(), op);
}

void HostStaging::gather(const Tensor& flat, std::span<const int64_t> offsets) {
  const int own = memory_->member(), size = memory_->size();
  for (Round round(flat, offsets, size); round.there(); round.next()) {
    turn();
    std::memcpy(slot(own, 0), round.begin(own), round.size(own));
    memory_->meet();
    for (int member = 0; member < size; ++member) {
      if (member != own) std::memcpy(round.begin(member), slot(member, 0), round.size(member));
    }
  }
}

void HostStaging::broadcast(const Tensor& flat, int root) {
  auto* bytes = static_cast<char*>(flat.data_ptr());
  for (size_t done = 0; done < flat.nbytes(); done += kBytes / 2) {
    const size_t count = std::min(flat.nbytes() - done, static_cast<size_t>(kBytes / 2));
    turn();
    if (memory_->member() == root) std::memcpy(slot(root, 0), bytes + done, count);
    memory_->meet();
    if (memory_->member() != root) std::memcpy(bytes + done, slot(root, 0), count);
  }
}

}  // namespace penstock::comm
