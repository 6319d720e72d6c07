#pragma once
// Which rank stands where in the mesh of a job.
#include <string_view>
#include <vector>

namespace penstock::plan {

enum class Axis { kPipe, kData, kTensor };

struct Coordinates {
  int pipe = 0;    // position in the pipeline
  int data = 0;    // replica
  int tensor = 0;  // part of each layer

  bool operator==(const Coordinates&) const = default;
};

// Ranks are numbered row-major over (pipe, data, tensor), as DeepSpeed does: the tensor axis, which talks most, is on neighbouring ranks.
struct Topology {
  int pipe = 1;
  int data = 1;
  int tensor = 1;

  [[nodiscard]] int size() const { return pipe * data * tensor; }
  [[nodiscard]] int rank(const Coordinates& at) const { return (at.pipe * data + at.data) * tensor + at.tensor; }
  [[nodiscard]] Coordinates coordinates(int rank) const { return {rank / (data * tensor), rank / tensor % data, rank % tensor}; }

  // The groups of ranks that differ on this axis only: rising ranks, groups in the order of their first rank.
  [[nodiscard]] std::vector<std::vector<int>> groups(Axis axis) const;
};

}  // namespace penstock::plan
