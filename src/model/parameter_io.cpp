#include "model/parameter_io.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"

namespace penstock::model {
namespace {

std::string shape_text(at::IntArrayRef sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

// Of the whole stored tensor that `part` is held of, as it lies in the checkpoint.
std::vector<int64_t> stored_shape(const StoredRows& rows, const at::Tensor& part) {
  std::vector<int64_t> shape = part.sizes().vec();
  if (rows.cut.whole > 0) shape[static_cast<size_t>(rows.cut.dim)] = rows.cut.whole;
  if (rows.transposed) std::reverse(shape.begin(), shape.end());
  return shape;
}

}  // namespace

std::vector<std::pair<std::string, at::Tensor>> stored_parts(const Parameter& parameter, const at::Tensor& values) {
  PENSTOCK_CHECK(!parameter.is_cut(), "{}: this rank has a part of it only", parameter.name);
  std::vector<std::pair<std::string, at::Tensor>> parts;
  for (const StoredRows& rows : parameter.stored) {
    const at::Tensor part = values.detach().narrow(0, rows.begin, rows.end - rows.begin);
    parts.emplace_back(rows.name, rows.transposed ? part.t() : part);
  }
  return parts;
}

void load_parameter(const Parameter& parameter, at::Tensor& into, const TensorLookup& lookup) {
  at::NoGradGuard no_grad;
  for (const StoredRows& rows : parameter.stored) {
    const at::Tensor part = into.detach().narrow(0, rows.begin, rows.end - rows.begin);
    const at::Tensor found = lookup(rows.name);
    const std::vector<int64_t> expected = stored_shape(rows, part);
    if (found.sizes() != at::IntArrayRef(expected)) {
      throw error(Code::kDataLoss, "tensor '{}': expected shape {}, found {}; do config.json and the weights belong together?", rows.name,
                  shape_text(expected), shape_text(found.sizes()));
    }
    if (!found.is_floating_point()) throw error(Code::kDataLoss, "tensor '{}': expected floating point, found {}", rows.name, at::toString(found.scalar_type()));
    const at::Tensor whole = rows.transposed ? found.t() : found;
    part.copy_(rows.cut.whole > 0 ? whole.narrow(rows.cut.dim, rows.cut.first, part.size(rows.cut.dim)) : whole);
  }
}

}  // namespace penstock::model
