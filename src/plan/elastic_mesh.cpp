#include "plan/elastic_mesh.h"

#include <algorithm>

#include "plan/choose_schedule.h"
#include "plan/schedule.h"

namespace penstock::plan {

std::optional<ElasticMesh> fit_replicas(const ElasticRequest& request, int ranks) {
  const std::string name = request.schedule == kAutoSchedule ? "1f1b" : request.schedule;
  for (int replicas = std::min(ranks / request.pipe, request.microbatches); replicas >= 1; --replicas) {
    if (request.microbatches % replicas != 0) continue;
    const int each = request.microbatches / replicas;
    if (make_schedule({name, request.pipe, each, request.chunks}).ok()) return ElasticMesh{replicas, each};
  }
  return std::nullopt;
}

}  // namespace penstock::plan
