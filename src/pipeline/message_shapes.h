#pragma once
// What messages looked like, so that the next one can be foreseen.
#include <ATen/core/Tensor.h>

#include <vector>

#include "model/layer.h"

namespace penstock::pipeline {

struct TensorShape {
  std::vector<int64_t> sizes;
  at::ScalarType dtype = at::kFloat;

  bool operator==(const TensorShape&) const = default;
};

[[nodiscard]] std::vector<TensorShape> shapes_of(const model::Tensors& tensors);

// The shapes of the last message of each key. Two ends that note the same messages expect the same.
//
// Threads: one.
class MessageShapes {
 public:
  // What the next message of `key` should look like, when the last two were alike and had tensors; else null. Valid until note().
  [[nodiscard]] const std::vector<TensorShape>* expected(int key) const;
  void note(int key, const std::vector<TensorShape>& shapes);

 private:
  struct Last {
    std::vector<TensorShape> shapes;
    bool repeated = false;
  };
  std::vector<Last> last_;  // by key
};

}  // namespace penstock::pipeline
