#include "plan/elastic_mesh.h"

#include <gtest/gtest.h>

namespace penstock::plan {
namespace {

TEST(ElasticMesh, TakesTheMostReplicasThatDivideTheStep) {
  for (int pipe = 1; pipe <= 4; ++pipe) {
    for (int microbatches = 1; microbatches <= 12; ++microbatches) {
      for (int ranks = 0; ranks <= 20; ++ranks) {
        const auto mesh = fit_replicas({"1f1b", pipe, 0, microbatches}, ranks);
        ASSERT_EQ(mesh.has_value(), ranks >= pipe);
        if (!mesh) continue;
        EXPECT_EQ(mesh->replicas * mesh->microbatches, microbatches) << "the global batch stays";
        EXPECT_LE(mesh->replicas * pipe, ranks);
        for (int more = mesh->replicas + 1; more * pipe <= ranks; ++more) EXPECT_NE(microbatches % more, 0) << more << " replicas would do, too";
      }
    }
  }
}

TEST(ElasticMesh, KeepsToWhatTheScheduleCanHave) {
  // dualpipev needs 2 micro-batches a stage at least.
  EXPECT_EQ(fit_replicas({"dualpipev", 2, 0, 8}, 8), (ElasticMesh{2, 4}));
  EXPECT_EQ(fit_replicas({"1f1b", 2, 0, 8}, 8), (ElasticMesh{4, 2}));
  EXPECT_EQ(fit_replicas({"auto", 2, 0, 8}, 8), (ElasticMesh{4, 2}));
  EXPECT_EQ(fit_replicas({"dualpipev", 4, 0, 4}, 8), std::nullopt);
}

}  // namespace
}  // namespace penstock::plan
