#pragma once
// How a flat tensor is cut into a part for each rank. Torch-free.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace penstock::comm {

struct Part {
  int64_t begin = 0, end = 0;  // elements

  [[nodiscard]] int64_t count() const { return end - begin; }
};

// [offsets[0], offsets[1]), [offsets[1], offsets[2]), …
[[nodiscard]] std::vector<Part> parts_of(std::span<const int64_t> offsets);

// `ranks` parts of nearly the same size, which begin at multiples of 16 elements (a cache line of float32): ranks + 1 offsets.
[[nodiscard]] std::vector<int64_t> even_parts(int64_t num_elements, int ranks);

// What is wrong with the offsets that a caller gave; empty when nothing is.
[[nodiscard]] std::string wrong_parts(std::span<const int64_t> offsets, int64_t num_elements, int ranks);

}  // namespace penstock::comm
