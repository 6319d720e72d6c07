#include "model/parameter_io.h"

#include <fmt/ranges.h>

#include "base/error.h"

namespace penstock::model {
namespace {

std::string shape_text(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

}  // namespace

std::vector<std::pair<std::string, at::Tensor>> stored_parts(const Parameter& parameter, const at::Tensor& values) {
  std::vector<std::pair<std::string, at::Tensor>> parts;
  for (const StoredRows& rows : parameter.stored) {
    const at::Tensor part = values.detach().narrow(0, rows.begin, rows.end - rows.begin);
    parts.emplace_back(rows.name, rows.transposed ? part.t() : part);
  }
  return parts;
}

void load_parameter(const Parameter& parameter, at::Tensor& into, const TensorLookup& lookup) {
  at::NoGradGuard no_grad;
  for (auto& [name, part] : stored_parts(parameter, into)) {
    const at::Tensor found = lookup(name);
    if (found.sizes() != part.sizes()) {
      throw error(Code::kDataLoss, "tensor '{}': expected shape {}, found {}; do config.json and the weights belong together?", name,
                  shape_text(part), shape_text(found));
    }
    if (!found.is_floating_point()) throw error(Code::kDataLoss, "tensor '{}': expected floating point, found {}", name, at::toString(found.scalar_type()));
    part.copy_(found);
  }
}

}  // namespace penstock::model
