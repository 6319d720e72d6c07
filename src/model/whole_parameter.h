#pragma once
// A cut parameter as it is where one rank has all of it, and where in that lies what this rank has.
#include <ATen/core/Tensor.h>

#include <vector>

#include "model/layer.h"

namespace penstock::model {

// Stored tensors follow on one another in the order of Parameter::stored; one that several of its entries name is there once.
class WholeParameter {
 public:
  // REQUIRES: parameter.is_cut(); it outlives this.
  explicit WholeParameter(const Parameter& parameter);

  [[nodiscard]] const std::vector<int64_t>& shape() const { return shape_; }
  // Views of what stored[i] is: in the whole, and in this rank's value or a tensor of its shape.
  [[nodiscard]] at::Tensor part(size_t i, const at::Tensor& whole) const;
  [[nodiscard]] at::Tensor own(size_t i, const at::Tensor& value) const;
  // The whole as a parameter of its own, with this value: what is written under the stored names.
  [[nodiscard]] Parameter uncut(at::Tensor whole) const;

 private:
  const Parameter& parameter_;
  std::vector<int64_t> shape_;
  std::vector<int64_t> first_rows_;  // of each entry's stored tensor, in the whole
};

}  // namespace penstock::model
