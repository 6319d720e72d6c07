#pragma once
// How many replicas a job gets when the number of its ranks changes. Pure.
#include <optional>
#include <string>

namespace penstock::plan {

struct ElasticRequest {
  std::string schedule;      // a name
  int pipe = 1;              // stages stay as they are
  int chunks = 0;
  int microbatches = 1;      // of a step, over all replicas: stays, too
};

struct ElasticMesh {
  int replicas = 1;
  int microbatches = 1;  // of each replica
  bool operator==(const ElasticMesh&) const = default;
};

// The most replicas that `ranks` have whole pipelines for, that divide the step's micro-batches evenly, and whose schedule exists with that many
// micro-batches. nullopt: there are fewer ranks than stages, or no such number.
[[nodiscard]] std::optional<ElasticMesh> fit_replicas(const ElasticRequest& request, int ranks);

}  // namespace penstock::plan
