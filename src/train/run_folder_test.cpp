// What runs leave in their folder for those that come after them: checkpoints, curves, timelines.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/chrome_trace.h"
#include "base/file.h"
#include "formats/checkpoint_folder.h"
#include "train/train_case_test.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

using RunFolderTest = TrainCase;

TEST_F(RunFolderTest, ACheckpointHasAValidationLossOfItsOwnOrNone) {
  auto c = small_run("own");
  c.steps = 15;
  c.checkpoint = {5, 5, 0};
  c.validation = {10, 1};
  run(c);
  const auto loss_at = [&](const std::string& step) { return formats::read_manifest(fs::path(c.output) / "checkpoints" / step).value().validation_loss; };
  EXPECT_FALSE(loss_at("step-00000005"));
  EXPECT_TRUE(loss_at("step-00000010"));
  EXPECT_FALSE(loss_at("step-00000015")) << "that of step 10 is not its own";
  c.output = small_run("compared").output;
  c.checkpoint.keep_best = 1;
  c.validation.every_steps = 0;
  run(c);
  for (const char* step : {"step-00000005", "step-00000010", "step-00000015"}) EXPECT_TRUE(loss_at(step)) << "the best cannot be told without";
}

TEST_F(RunFolderTest, ADamagedCheckpointDoesNotTakeThePlaceOfAGoodOne) {
  auto c = small_run("damaged");
  c.checkpoint = {10, 2, 0};
  run(c);
  const fs::path folder = fs::path(c.output) / "checkpoints";
  fs::resize_file(folder / "step-00000020" / "stage-00000.safetensors", 100);
  c.checkpoint = {2, 1, 0};
  c.steps = 14;
  run(c, true);
  EXPECT_EQ(formats::newest_checkpoint(folder), folder / "step-00000014");
  EXPECT_THAT(formats::finished_checkpoints(folder), testing::ElementsAre(folder / "step-00000014", folder / "step-00000020"));
}

TEST_F(RunFolderTest, ARunThatIsRefusedLeavesTheFolderAsItWas) {
  auto c = small_run("kept");
  c.steps = 2;
  c.checkpoint.every_steps = 2;
  run(c);
  const fs::path folder = c.output;
  const std::string before = read_file(folder / "config.yaml", 1 << 20).value();
  const auto refused = [&](const config::TrainConfig& other, bool resume) -> std::string {
    try {
      comm::spawn_ranks(1, [&](comm::Communicator& world) {
        (void)train(other, world, {.resume = resume, .auto_resume = false, .overwrite = !resume, .quiet = true, .on_finished = {}, .local_rank = 0, .stop = nullptr});
      });
      return "accepted";
    } catch (const Error& e) {
      return e.message();
    }
  };
  auto other = c;
  other.data.paths = {"/nonexistent"};
  EXPECT_THAT(refused(other, false), testing::HasSubstr("/nonexistent"));
  other = c;
  other.model.num_layers = 1;
  EXPECT_THAT(refused(other, true), testing::HasSubstr("is of another model: model.num_layers 1 (before: 2)"));
  other = c;
  other.optimizer.name = config::OptimizerName::kSgd;
  EXPECT_THAT(refused(other, true), testing::HasSubstr("another optimizer: optimizer.name sgd (before: adamw)"));
  EXPECT_TRUE(formats::read_manifest(folder / "checkpoints" / "step-00000002").ok());
  EXPECT_EQ(read_file(folder / "config.yaml", 1 << 20).value(), before);
}

TEST_F(RunFolderTest, AResumedRunKeepsTheCurveAndHasATimeline) {
  auto c = small_run("curves");
  c.checkpoint.every_steps = 10;
  c.validation = {10, 1};
  run(c);
  const auto read = [&](const char* file) { return read_file(fs::path(c.output) / file, 1 << 28).value(); };
  const std::string curve = read("loss.svg"), timeline = read("timeline.json");
  run(c, true);  // is over at once
  EXPECT_EQ(read("loss.svg"), curve);
  EXPECT_EQ(read("timeline.json"), timeline);
  c.steps = 28;
  run(c, true);
  EXPECT_NE(read("timeline.json"), timeline) << "that of the steps after the resume";
  EXPECT_FALSE(ChromeTrace::parse(read("timeline.json")).value().events().empty());
  std::ifstream metrics(fs::path(c.output) / "metrics.jsonl");
  std::string first;
  std::getline(metrics, first);
  EXPECT_LE(nlohmann::json::parse(first)["step"], 10);
}

}  // namespace
}  // namespace penstock::train
