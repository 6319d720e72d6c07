// What runs leave in their folder for those that come after them: checkpoints, curves, timelines.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

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

// What a run says that does not begin.
std::string refusal(const config::TrainConfig& c, bool resume) {
  try {
    comm::spawn_ranks(c.world_size(), [&](comm::Communicator& world) { (void)train(c, world, {.resume = resume, .quiet = true, .local_rank = world.rank()}); });
    return "accepted";
  } catch (const Error& e) {
    return e.message();
  }
}

TEST_F(RunFolderTest, WhatInterruptedWritesLeftIsRemovedBeforeRoomIsNeeded) {
  auto c = small_run("interrupted");
  c.steps = 2;
  const fs::path checkpoint = fs::path(c.output) / "checkpoints" / "step-00000007.writing", model = fs::path(c.output) / "model.writing";
  for (const fs::path& left : {checkpoint, model}) {
    fs::create_directories(left);
    write_file_atomic(left / "torn", "x");
  }
  c.data.paths = {"/nonexistent"};
  EXPECT_THAT(refusal(c, false), testing::HasSubstr("/nonexistent"));
  EXPECT_TRUE(fs::exists(checkpoint)) << "of a run that is refused nothing is touched";
  c.data.paths = small_run("").data.paths;
  run(c);
  EXPECT_FALSE(fs::exists(checkpoint));
  EXPECT_FALSE(fs::exists(model));
  EXPECT_TRUE(fs::exists(fs::path(c.output) / "model" / "config.json"));
}

TEST_F(RunFolderTest, WhatIsNoFolderIsRefusedByName) {
  auto c = small_run("odd");
  fs::create_directories(c.output);
  for (const char* name : {"checkpoints", "model", "tensorboard", "flight"}) {
    write_file_atomic(fs::path(c.output) / name, "a file");
    for (const bool resume : {false, true}) EXPECT_THAT(refusal(c, resume), testing::HasSubstr(fmt::format("odd/{} is no folder", name)));
    fs::remove(fs::path(c.output) / name);
  }
  write_file_atomic(dir_.path() / "file", "x");
  c.output = dir_.path() / "file";
  EXPECT_THAT(refusal(c, false), testing::HasSubstr("file: Not a directory"));
}

TEST_F(RunFolderTest, TwoRunsDoNotWriteTheSameFolder) {
  auto c = small_run("shared");
  c.steps = 1;
  fs::create_directories(c.output);
  const int other = ::open(c.output.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(other, LOCK_EX), 0);
  EXPECT_THAT(refusal(c, false), testing::HasSubstr("another run is writing"));
  std::thread ends([&] {
    std::this_thread::sleep_for(milliseconds(200));
    ::close(other);
  });
  EXPECT_EQ(refusal(c, false), "accepted") << "one that is being killed is waited for";
  ends.join();
}

TEST_F(RunFolderTest, ADamagedCheckpointNamesTheOlderOne) {
  auto c = small_run("older");
  c.steps = 6;
  c.checkpoint = {2, 3, 0};
  run(c);
  const fs::path folder = fs::path(c.output) / "checkpoints";
  const auto damage = [](const fs::path& checkpoint) {
    std::fstream bytes(checkpoint / "stage-00000.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(-5, std::ios::end);
    bytes.put('!');
  };
  damage(folder / "step-00000006");
  fs::resize_file(folder / "step-00000004" / "stage-00000.safetensors", 10);
  EXPECT_THAT(refusal(c, true), testing::AllOf(testing::HasSubstr("is damaged: checksum"), testing::HasSubstr("step-00000006 away, and --resume continues from step 2")));
  fs::remove_all(folder / "step-00000002");
  EXPECT_THAT(refusal(c, true), testing::HasSubstr("there is no older checkpoint: start anew with --overwrite"));
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
