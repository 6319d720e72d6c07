#include "model/whole_parameter.h"

#include <algorithm>

namespace penstock::model {
namespace {

int64_t stored_rows(const StoredRows& rows) { return rows.cut.whole > 0 && rows.cut.dim == 0 ? rows.cut.whole : rows.end - rows.begin; }

}  // namespace

WholeParameter::WholeParameter(const Parameter& parameter) : parameter_(parameter), shape_(parameter.value.sizes().vec()) {
  const auto& all = parameter.stored;
  int64_t rows = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto same = std::find_if(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(i), [&](const StoredRows& other) { return other.name == all[i].name; });
    const bool is_new = same == all.begin() + static_cast<std::ptrdiff_t>(i);
    first_rows_.push_back(is_new ? rows : first_rows_[static_cast<size_t>(same - all.begin())]);
    if (is_new) rows += stored_rows(all[i]);
    if (all[i].cut.whole > 0 && all[i].cut.dim == 1) shape_[1] = all[i].cut.whole;
  }
  shape_[0] = rows;
}

at::Tensor WholeParameter::part(size_t i, const at::Tensor& whole) const {
  const StoredRows& rows = parameter_.stored[i];
  const int64_t first = first_rows_[i] + (rows.cut.dim == 0 ? rows.cut.first : 0);
  const at::Tensor part = whole.narrow(0, first, rows.end - rows.begin);
  return rows.cut.whole > 0 && rows.cut.dim == 1 ? part.narrow(1, rows.cut.first, parameter_.value.size(1)) : part;
}

at::Tensor WholeParameter::own(size_t i, const at::Tensor& value) const {
  const StoredRows& rows = parameter_.stored[i];
  return value.narrow(0, rows.begin, rows.end - rows.begin);
}

Parameter WholeParameter::uncut(at::Tensor whole) const {
  Parameter result = parameter_;
  result.value = std::move(whole);
  result.stored.clear();
  for (size_t i = 0; i < parameter_.stored.size(); ++i) {
    const StoredRows& rows = parameter_.stored[i];
    if (!result.stored.empty() && result.stored.back().name == rows.name) continue;
    result.stored.push_back({rows.name, first_rows_[i], first_rows_[i] + stored_rows(rows), rows.transposed});
  }
  return result;
}

}  // namespace penstock::model
