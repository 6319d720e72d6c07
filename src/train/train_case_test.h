#pragma once
// What tests of whole training runs share: a small model, and a text with something to learn. Ranks are threads.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "base/temp_dir.h"
#include "comm/spawn_ranks.h"
#include "train/trainer.h"

namespace penstock::train {

class TrainCase : public testing::Test {
 protected:
  TrainCase() {
    at::set_num_threads(1);
    std::ofstream text(dir_.path() / "text");
    for (int i = 0; i < 400; ++i) text << "document " << i * i << " says: the quick brown fox jumps over " << i << " lazy dogs\n%\n";
  }

  [[nodiscard]] config::TrainConfig small_run(const std::string& name) const {
    config::TrainConfig c;
    c.model = {32, 2, 4, 2, 64, 32, 10000, 1e-5, false, {}, {}};
    c.data.paths = {(dir_.path() / "text").string()};
    c.batch = {2, 2, 32};
    c.optimizer.lr = 3e-3;
    c.optimizer.warmup_steps = 3;
    c.steps = 20;
    c.device = "cpu";
    c.precision = config::Precision::kFloat32;
    c.validation = {0, 1};
    c.output = (dir_.path() / name).string();
    c.timeout_seconds = 30;
    return c;
  }

  // Throws the Error of the rank that failed.
  static TrainSummary run(const config::TrainConfig& c, bool resume = false) {
    TrainSummary summary;
    comm::spawn_ranks(c.world_size(), [&](comm::Communicator& world) {
      const TrainSummary mine = train(c, world, {.resume = resume, .auto_resume = false, .overwrite = false, .quiet = true, .on_finished = {}, .local_rank = world.rank(), .stop = nullptr});
      if (world.rank() == 0) summary = mine;
    });
    return summary;
  }

  TempDir dir_;
};

}  // namespace penstock::train
