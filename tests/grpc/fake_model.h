#pragma once
// A model of tensors: it answers with twice its inputs, under their names. An INT64 of 99 is refused.
#include <string>
#include <vector>

#include "handler/tensor_handler.h"

namespace penstock::tests {

class FakeModel final : public handler::TensorModel {
 public:
  [[nodiscard]] std::vector<std::string> input_names() const override { return {}; }
  [[nodiscard]] Result<std::vector<handler::Tensor>> run(const std::vector<handler::Tensor>& inputs) override;
};

}  // namespace penstock::tests
