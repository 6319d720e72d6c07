#include "kernels/step_rows.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace penstock::kernels {
namespace {

int pages_read(const SequenceRows& s) { return (s.start + s.count + kPageTokens - 1) / kPageTokens; }

// Sequences with up to 16 pages, 64, 256, … are not padded to each other's length: at most four times as much is read as there is.
int length_class(int pages) {
  int result = 0;
  for (int limit = 16; limit < pages; limit *= 4) ++result;
  return result;
}

// A group before its tensors are made.
struct PlannedGroup {
  std::vector<size_t> sequences;  // numbers in the step
  int64_t rows = 0, pages = 0, rows_at_once = 0;
};

// Those of one length class and number of rows, as many as the bound allows.
std::vector<PlannedGroup> plan_groups(std::span<const SequenceRows> sequences, const AttentionShape& shape, int64_t most_elements) {
  std::map<std::pair<int, int>, std::vector<size_t>> alike;
  for (size_t i = 0; i < sequences.size(); ++i) alike[{sequences[i].count, length_class(pages_read(sequences[i]))}].push_back(i);
  std::vector<PlannedGroup> groups;
  for (const auto& [key, all] : alike) {
    int64_t pages = 0;
    for (const size_t i : all) pages = std::max<int64_t>(pages, pages_read(sequences[i]));
    const int64_t rows = key.first, of_row = shape.heads * pages * kPageTokens, of_pages = 2 * shape.kv_heads * shape.head_size * pages * kPageTokens;
    const auto at_once = static_cast<size_t>(std::max<int64_t>(1, most_elements / (rows * of_row + of_pages)));
    for (size_t first = 0; first < all.size(); first += at_once) {
      const size_t end = std::min(all.size(), first + at_once);
      groups.push_back({{all.begin() + static_cast<ptrdiff_t>(first), all.begin() + static_cast<ptrdiff_t>(end)}, rows, pages,
                        std::clamp<int64_t>(most_elements / of_row / static_cast<int64_t>(end - first), 1, rows)});
    }
  }
  return groups;
}

// Numbers that go to the device in one piece.
class Parcel {
 public:
  void add(int64_t number) { numbers_.push_back(number); }
  void send(const at::Device& device) { sent_ = at::tensor(numbers_, at::kLong).to(device, /*non_blocking=*/true); }
  // The next ones, in the order in which they were added.
  [[nodiscard]] Tensor take(int64_t count) {
    taken_ += count;
    return sent_.narrow(0, taken_ - count, count);
  }

 private:
  std::vector<int64_t> numbers_;
  Tensor sent_;
  int64_t taken_ = 0;
};

void add_group(const PlannedGroup& group, std::span<const SequenceRows> sequences, std::span<const int64_t> first_rows, Parcel& parcel) {
  for (const size_t i : group.sequences) {
    for (int64_t r = 0; r < group.rows; ++r) parcel.add(first_rows[i] + r);
  }
  for (const size_t i : group.sequences) parcel.add(sequences[i].start + sequences[i].count - 1);
  for (const size_t i : group.sequences) {
    const int read = pages_read(sequences[i]);
    for (int p = 0; p < group.pages; ++p) parcel.add(sequences[i].pages[static_cast<size_t>(std::min(p, read - 1))]);
  }
}

}  // namespace

int64_t check_sequences(std::span<const SequenceRows> sequences, int64_t num_pages) {
  int64_t rows = 0;
  for (const SequenceRows& s : sequences) {
    PENSTOCK_CHECK(s.start >= 0 && s.count > 0 && static_cast<size_t>(s.start + s.count) <= s.pages.size() * kPageTokens,
                   "attention: positions {}+{} of a sequence with {} pages", s.start, s.count, s.pages.size());
    for (const int32_t page : s.pages) PENSTOCK_CHECK(page >= 0 && page < num_pages, "attention: page {} of {}", page, num_pages);
    rows += s.count;
  }
  return rows;
}

void StepRows::begin(std::span<const SequenceRows> sequences, int64_t num_pages) {
  const int64_t count = check_sequences(sequences, num_pages);
  if (by_ == By::kLibTorch || !cuda::takes_attention(shape_, device_)) return begin_tensors(sequences, count);
  own_tables_.emplace(sequences, shape_, device_);
  positions_ = own_tables_->positions().to(at::kLong);
}

void StepRows::begin_tensors(std::span<const SequenceRows> sequences, int64_t count) {
  const std::vector<PlannedGroup> planned = plan_groups(sequences, shape_, most_elements_);
  Parcel parcel;
  std::vector<int64_t> first_rows;
  for (int64_t next = 0; const SequenceRows& s : sequences) {
    first_rows.push_back(std::exchange(next, next + s.count));
    for (int p = s.start; p < s.start + s.count; ++p) parcel.add(p);
  }
  for (const SequenceRows& s : sequences) {
    for (int p = s.start; p < s.start + s.count; ++p) parcel.add(s.pages[static_cast<size_t>(p / kPageTokens)]);
  }
  for (const PlannedGroup& group : planned) add_group(group, sequences, first_rows, parcel);
  parcel.send(device_);
  positions_ = parcel.take(count);
  pages_ = parcel.take(count);
  lanes_ = positions_.remainder(kPageTokens);
  groups_.clear();
  rotations_.clear();
  for (const PlannedGroup& p : planned) {
    const auto size = static_cast<int64_t>(p.sequences.size());
    RowGroup group;
    group.sequences = size;
    group.rows = p.rows;
    group.pages = p.pages;
    group.rows_at_once = p.rows_at_once;
    group.index = parcel.take(size * p.rows);
    const Tensor last = parcel.take(size);
    group.table = parcel.take(size * p.pages).view({size, p.pages});
    complete(group, last);
    groups_.push_back(std::move(group));
  }
  if (groups_.size() == 1) groups_[0].index = Tensor();  // the order within a group is the step's
}

// `last` [S]: the position of each sequence's last row.
void StepRows::complete(RowGroup& group, const Tensor& last) const {
  const int64_t s = group.sequences, g = shape_.kv_heads, k = shape_.head_size;
  const Tensor heads = at::arange(g * k, positions_.options()).view({1, g, k, 1});
  group.keys = (group.table.view({s, 1, 1, group.pages}) * (g * k) + heads).view({-1});
  group.values = (group.table.view({s, 1, group.pages}) * g + at::arange(g, positions_.options()).view({1, g, 1})).view({-1});
  const Tensor all = at::arange(group.positions(), positions_.options());
  group.hidden = all.gt(positions_.index_select(0, group.index).view({s, 1, 1, group.rows, 1}));
  group.beyond = all.view({1, 1, -1, 1}).gt(last.view({s, 1, 1, 1}));
}

const Tensor& StepRows::table(const RotaryTable& table) {
  Tensor& on_device = tables_[&table];
  if (!on_device.defined()) {
    const auto rows = [&](const float* data) { return at::from_blob(const_cast<float*>(data), {table.max_positions(), table.half()}, at::kFloat); };
    on_device = at::stack({rows(table.cos(0)), rows(table.sin(0))}, 1).to(device_);
  }
  return on_device;
}

const StepRows::Rotation& StepRows::rotation(const RotaryTable& rotary) {
  Rotation& made = rotations_[&rotary];
  if (!made.cos.defined()) {
    const Tensor rows = table(rotary).index_select(0, positions_).unsqueeze(1);  // [N, 1, 2, K/2]
    const Tensor cos = rows.select(2, 0), sin = rows.select(2, 1);
    made = {at::cat({cos, cos}, -1), at::cat({-sin, sin}, -1)};
  }
  return made;
}

}  // namespace penstock::kernels
