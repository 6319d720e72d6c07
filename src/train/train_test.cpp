// Whole training runs, ranks as threads: what parallel runs must have in common with single-process ones.
#include "train/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/chrome_trace.h"
#include "base/file.h"
#include "comm/spawn_ranks.h"
#include "formats/checkpoint_folder.h"
#include "train/checkpoint_writer.h"
#include "train/train_case_test.h"
#include "weights/hf_directory.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

class TrainTest : public TrainCase {
 protected:
  [[nodiscard]] config::TrainConfig config(const std::string& name) const { return small_run(name); }

  static void expect_same_model(const config::TrainConfig& a, const config::TrainConfig& b) {
    const auto x = weights::HfDirectory::open(fs::path(a.output) / "model"), y = weights::HfDirectory::open(fs::path(b.output) / "model");
    ASSERT_EQ(x.names(), y.names());
    for (const auto& name : x.names()) EXPECT_TRUE(x.tensor(name).equal(y.tensor(name))) << name;
  }
};

TEST_F(TrainTest, TwoReplicasOfTwoStagesFollowTheSingleProcess) {
  auto single = config("single");
  single.batch.microbatches = 4;
  auto parallel = config("parallel");
  parallel.mesh = {2, 2};
  const auto a = run(single), b = run(parallel);
  ASSERT_EQ(a.losses.size(), 20u);
  ASSERT_EQ(b.losses.size(), 20u);
  for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 1e-5) << "step " << i;
  EXPECT_LT(a.losses.back(), a.losses.front() - 0.5) << "nothing was learned";
  EXPECT_NEAR(a.validation_loss, b.validation_loss, 1e-4);
}

TEST_F(TrainTest, EveryScheduleFollowsTheSingleProcess) {
  auto single = config("single");
  single.batch.microbatches = 8;
  single.batch.microbatch_size = 1;
  single.model.num_layers = 4;
  single.model.tie_word_embeddings = true;
  const auto a = run(single);
  for (const char* schedule : {"gpipe", "eager-1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "zb-v", "dualpipev"}) {
    SCOPED_TRACE(schedule);
    auto parallel = single;
    parallel.output = config(schedule).output;
    parallel.mesh = {2, 2};
    parallel.batch.microbatches = 4;
    parallel.schedule = schedule;
    parallel.bucket_mib = 0.01;  // several buckets a stage
    const auto b = run(parallel);
    ASSERT_EQ(b.losses.size(), 20u);
    for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 1e-5) << "step " << i;
  }
}

TEST_F(TrainTest, AShardedOptimizerChangesNoBit) {
  auto whole = config("whole");
  whole.mesh = {2, 2};
  auto sharded = whole;
  sharded.output = config("sharded").output;
  sharded.sharding = config::Sharding::kOptimizer;
  run(whole);
  run(sharded);
  expect_same_model(whole, sharded);
}

TEST_F(TrainTest, EveryShardingTrainsResumesAndWritesTheSameModelBitwise) {
  auto plain = config("plain");
  plain.mesh = {2, 2};
  plain.model.tie_word_embeddings = true;
  plain.batch = {1, 4, 32};  // one micro-batch: sums in the same order
  plain.steps = 10;
  plain.validation = {4, 1};
  const auto expected = run(plain);
  for (const char* name : {"optimizer", "gradients", "parameters"}) {
    SCOPED_TRACE(name);
    auto sharded = plain;
    sharded.output = config(name).output;
    ASSERT_FALSE(config::apply_override(sharded, std::string("sharding=") + name));
    sharded.checkpoint = {5, 5, 0};
    EXPECT_EQ(run(sharded).losses, expected.losses);
    expect_same_model(plain, sharded);
    fs::remove_all(fs::path(sharded.output) / "checkpoints" / "step-00000010");
    fs::remove_all(fs::path(sharded.output) / "model");
    EXPECT_EQ(run(sharded, true).losses, std::vector(expected.losses.begin() + 5, expected.losses.end()));
    expect_same_model(plain, sharded);
  }
}

TEST_F(TrainTest, AnyLayoutContinuesAnyCheckpoint) {
  auto first = config("layouts");
  first.model.num_layers = 4;
  first.model.tie_word_embeddings = true;
  first.batch = {4, 1, 32};
  first.mesh = {2, 2};
  first.sharding = config::Sharding::kOptimizer;
  first.schedule = "zb-v";
  first.checkpoint = {10, 5, 0};
  const auto reference = run(first);
  fs::remove_all(fs::path(first.output) / "checkpoints" / "step-00000020");
  struct Layout {
    config::MeshConfig mesh;
    const char* schedule;
    bool shard;
  };
  for (const Layout& layout : {Layout{{2, 1}, "gpipe", true}, {{2, 3}, "1f1b", false}, {{2, 2}, "interleaved-1f1b", true}, {{2, 4}, "zb-h1", false}}) {
    SCOPED_TRACE(layout.schedule);
    auto next = first;
    next.output = config(layout.schedule).output;
    fs::create_directories(next.output);
    fs::copy(fs::path(first.output) / "checkpoints", fs::path(next.output) / "checkpoints", fs::copy_options::recursive);
    next.mesh = layout.mesh;
    next.schedule = layout.schedule;
    next.sharding = layout.shard ? config::Sharding::kOptimizer : config::Sharding::kNone;
    const auto continued = run(next, true);
    ASSERT_EQ(continued.losses.size(), 10u);
    for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(continued.losses[i], reference.losses[10 + i], 1e-5) << "step " << 10 + i;
  }
}

TEST_F(TrainTest, ATiedHeadIsOneWeightHoweverTheModelIsCut) {
  auto single = config("single");
  single.model.tie_word_embeddings = true;
  auto cut = single;
  cut.output = config("cut").output;
  cut.mesh.pipe = 2;
  const auto a = run(single), b = run(cut);
  for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 1e-5) << "step " << i;
  EXPECT_FALSE(weights::HfDirectory::open(fs::path(cut.output) / "model").has("lm_head.weight"));
}

TEST_F(TrainTest, TwoReplicasEqualTwoStepAccumulationBitwise) {
  auto accumulated = config("accumulated");
  accumulated.steps = 50;
  accumulated.batch = {2, 2, 32};
  auto replicas = accumulated;
  replicas.output = config("replicas").output;
  replicas.mesh.data = 2;
  replicas.batch.microbatches = 1;
  run(accumulated);
  run(replicas);
  expect_same_model(accumulated, replicas);
}

TEST_F(TrainTest, BucketSizeDoesNotChangeABitWithTwoReplicas) {
  auto one = config("one"), many = config("many");
  one.mesh.data = many.mesh.data = 2;
  one.bucket_mib = 64;
  many.bucket_mib = 0.004;
  run(one);
  run(many);
  expect_same_model(one, many);
}

TEST_F(TrainTest, AResumedRunEqualsAnUninterruptedOneBitwise) {
  auto whole = config("whole");
  whole.mesh = {1, 2};
  auto halves = whole;
  halves.output = config("halves").output;
  halves.checkpoint.every_steps = 10;
  // The first half ends as a killed run does: its checkpoint of step 10 is there, and steps after it are lost.
  const auto whole_run = run(whole);
  run(halves);
  fs::remove_all(fs::path(halves.output) / "checkpoints" / "step-00000020");
  const auto second = run(halves, true);
  ASSERT_EQ(second.losses.size(), 10u);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(second.losses[i], whole_run.losses[10 + i]) << "step " << 10 + i;
  expect_same_model(whole, halves);
}

TEST_F(TrainTest, ACheckpointOfOneLayoutContinuesInAnother) {
  auto first = config("first");
  first.mesh = {1, 2};
  first.checkpoint.every_steps = 10;
  const auto reference = run(first);
  fs::remove_all(fs::path(first.output) / "checkpoints" / "step-00000020");
  first.mesh = {1, 1};
  const auto second = run(first, true);
  for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(second.losses[i], reference.losses[10 + i], 1e-6) << "step " << 10 + i;
}

TEST_F(TrainTest, ACheckpointLoadsIntoAnyLayoutBitwise) {
  auto first = config("origin");
  first.model.num_layers = 4;
  first.model.tie_word_embeddings = true;
  first.batch = {4, 1, 32};
  first.steps = 5;
  first.mesh = {2, 2};
  first.schedule = "zb-v";
  first.sharding = config::Sharding::kOptimizer;
  first.checkpoint = {5, 5, 0};
  run(first);
  struct Layout {
    config::MeshConfig mesh;
    const char* schedule;
    bool shard;
  };
  for (const Layout& layout : {Layout{{1, 1}, "gpipe", false}, {{3, 1}, "gpipe", true}, {{1, 4}, "1f1b", false}, {{2, 3}, "zb-h1", true}}) {
    SCOPED_TRACE(fmt::format("{} x {}", layout.mesh.data, layout.mesh.pipe));
    // Loads it, has nothing left to train, and writes what it holds: the model, and a checkpoint of the same step.
    auto next = first;
    next.output = config(fmt::format("{}x{}", layout.mesh.data, layout.mesh.pipe)).output;
    fs::create_directories(next.output);
    fs::copy(fs::path(first.output) / "checkpoints", fs::path(next.output) / "checkpoints", fs::copy_options::recursive);
    next.mesh = layout.mesh;
    next.schedule = layout.schedule;
    next.sharding = layout.shard ? config::Sharding::kOptimizer : config::Sharding::kNone;
    EXPECT_TRUE(run(next, true).losses.empty());
    expect_same_model(first, next);
  }
}

TEST_F(TrainTest, Bfloat16PipelinesFollowTheSingleProcess) {
  auto single = config("bf16");
  single.precision = config::Precision::kBfloat16;
  single.steps = 200;
  single.batch = {4, 1, 32};
  auto cut = single;
  cut.output = config("bf16-cut").output;
  cut.mesh.pipe = 2;
  cut.schedule = "zb-h1";
  const auto a = run(single), b = run(cut);
  ASSERT_EQ(a.losses.size(), 200u);
  for (size_t i = 0; i < 200; ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 1e-2) << "step " << i;
}

TEST_F(TrainTest, ATornCheckpointIsNeverChosen) {
  auto c = config("torn");
  c.checkpoint = {10, 5, 0};
  run(c);
  const fs::path folder = fs::path(c.output) / "checkpoints";
  const fs::path newest = folder / "step-00000020", older = folder / "step-00000010";
  ASSERT_EQ(formats::newest_checkpoint(folder), newest);
  const fs::path file = newest / "stage-00000.safetensors";
  fs::resize_file(file, fs::file_size(file) - 1);
  EXPECT_EQ(formats::newest_checkpoint(folder), older) << "a file is shorter than the manifest says";
  fs::rename(older, folder / "step-00000010.writing");
  EXPECT_EQ(formats::newest_checkpoint(folder), std::nullopt) << "an unfinished folder has another name";
}

TEST_F(TrainTest, AFlippedByteIsNamedAndNothingContinuesFromIt) {
  auto c = config("flipped");
  c.mesh.pipe = 2;
  c.checkpoint = {10, 5, 0};
  run(c);
  const fs::path checkpoint = fs::path(c.output) / "checkpoints" / "step-00000020", file = checkpoint / "stage-00001.safetensors";
  EXPECT_NO_THROW(formats::verify_checkpoint(checkpoint, {}));
  {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(-5, std::ios::end);
    bytes.put('!');
  }
  const auto refusal = [](const auto& work) -> std::string {
    try {
      work();
    } catch (const Error& e) {
      return e.message();
    }
    return "accepted";
  };
  EXPECT_THAT(refusal([&] { formats::verify_checkpoint(checkpoint, {}); }), testing::HasSubstr("stage-00001.safetensors: tensor 'lm_head.weight.v' is damaged"));
  c.steps = 30;
  EXPECT_THAT(refusal([&] { run(c, true); }), testing::HasSubstr("is damaged"));

  const fs::path older = fs::path(c.output) / "checkpoints" / "step-00000010";
  std::ofstream(older / formats::kModelDescription / "tokenizer.json", std::ios::app) << ' ';
  EXPECT_THAT(refusal([&] { formats::verify_checkpoint(older, {}); }), testing::HasSubstr("tokenizer.json is damaged"));
  EXPECT_THAT(refusal([&] { formats::export_checkpoint(older, dir_.path() / "damaged", {}); }), testing::HasSubstr("tokenizer.json is damaged"));
  fs::remove(older / formats::kModelDescription / "tokenizer.json");
  EXPECT_THAT(refusal([&] { formats::verify_checkpoint(older, {}); }), testing::HasSubstr("tokenizer.json: it is gone"));
}

TEST_F(TrainTest, KeepsTheNewestAndTheBestCheckpoints) {
  auto c = config("best");
  c.steps = 12;
  c.checkpoint = {2, 2, 1};
  c.validation = {2, 1};
  c.optimizer.schedule = config::LearningRateSchedule::kConstant;
  c.optimizer.lr = 1e-30;  // stays where it is, so that losses are equal and the first is the best
  run(c);
  const auto kept = formats::finished_checkpoints(fs::path(c.output) / "checkpoints");
  std::vector<std::string> names;
  for (const fs::path& path : kept) names.push_back(path.filename());
  EXPECT_THAT(names, testing::ElementsAre("step-00000002", "step-00000010", "step-00000012"));
  EXPECT_TRUE(formats::read_manifest(kept[0]).value().validation_loss.has_value());
}

TEST_F(TrainTest, AnExportedCheckpointIsTheModelOfTheRun) {
  auto c = config("export");
  c.mesh.pipe = 2;
  c.model.tie_word_embeddings = true;
  c.checkpoint = {20, 1, 0};
  run(c);
  const fs::path output = dir_.path() / "exported";
  formats::export_checkpoint(fs::path(c.output) / "checkpoints" / "step-00000020", output, {});
  const auto x = weights::HfDirectory::open(output), y = weights::HfDirectory::open(fs::path(c.output) / "model");
  auto names = x.names(), expected = y.names();
  std::ranges::sort(names);
  std::ranges::sort(expected);
  ASSERT_EQ(names, expected);
  for (const auto& name : names) EXPECT_TRUE(x.tensor(name).equal(y.tensor(name))) << name;
  EXPECT_EQ(read_file(output / "config.json", 1 << 20).value(), read_file(fs::path(c.output) / "model" / "config.json", 1 << 20).value());
  EXPECT_THROW(formats::export_checkpoint(fs::path(c.output) / "checkpoints" / "step-00000020", output, {}), Error);
}

TEST_F(TrainTest, ACheckpointThatCannotBeWrittenEndsTheRun) {
  auto c = config("blocked");
  c.checkpoint = {10, 5, 0};
  fs::create_directories(c.output);
  std::ofstream(fs::path(c.output) / "checkpoints") << "a file where a folder must be";
  EXPECT_THROW(run(c), std::exception);

  // The disk is full while the background thread writes.
  CheckpointWriter::Options options;
  options.place.folder = dir_.path() / "slow";
  options.place.pipe_ranks = 2;  // whose second never comes
  options.timeout = seconds(0);
  CheckpointWriter writer(options);
  std::string message;
  try {
    comm::spawn_ranks(1, [&](comm::Communicator& world) {
      std::vector<model::Parameter> none;
      WholeParameters shards(none);
      Optimizer optimizer(none, {}, shards);
      writer.start(world, {&none, &shards, &optimizer, {}}, "", std::nullopt, Deadline::after(seconds(5)));
      writer.finish();
    });
  } catch (const Error& e) {
    message = e.message();
  }
  EXPECT_THAT(message, testing::AllOf(testing::HasSubstr("checkpoint of step-00000000"), testing::HasSubstr("pipe rank 1 of replica 0 has not written")));
  EXPECT_TRUE(formats::finished_checkpoints(options.place.folder).empty());
}

// Two machines whose views of one file system differ for a while: the second does not see the newest checkpoint yet.
TEST_F(TrainTest, EveryRankGoesOnFromTheCheckpointThatRank0Sees) {
  auto c = config("first");
  c.mesh = {2, 1};
  c.steps = 8;
  c.checkpoint = {4, 5, 0};
  run(c);
  c.steps = 10;
  c.checkpoint.every_steps = 0;
  auto late = c;
  late.output = config("second").output;
  const fs::path newest = fs::path("checkpoints") / "step-00000008", hidden = dir_.path() / "hidden";
  fs::copy(c.output, late.output, fs::copy_options::recursive);
  fs::rename(fs::path(late.output) / newest, hidden);
  std::thread shows([&] {
    std::this_thread::sleep_for(milliseconds(300));
    fs::rename(hidden, fs::path(late.output) / newest);
  });
  comm::spawn_ranks(2, [&](comm::Communicator& world) {
    const auto summary = train(world.rank() == 0 ? c : late, world, {.resume = true, .auto_resume = false, .overwrite = false, .quiet = true, .on_finished = {}, .local_rank = world.rank(), .stop = nullptr});
    EXPECT_EQ(summary.losses.size(), 2u);
  });
  shows.join();
}

TEST_F(TrainTest, RefusesToContinueWithAnotherModel) {
  auto c = config("other");
  c.steps = 2;
  c.checkpoint.every_steps = 2;
  run(c);
  for (int change = 0; change < 2; ++change) {
    auto other = c;
    other.model.num_layers -= change;
    other.model.tie_word_embeddings = change == 0;
    try {
      run(other, true);
      FAIL() << "expected an Error";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInvalidArgument);
      EXPECT_NE(e.message().find("is of another model"), std::string::npos) << e.message();
    }
  }
}

TEST_F(TrainTest, RefusesToStartAnewOverCheckpoints) {
  auto c = config("again");
  c.steps = 2;
  c.checkpoint.every_steps = 2;
  run(c);
  try {
    run(c);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kFailedPrecondition) << e.message();
  }
}

TEST_F(TrainTest, StopsAllRanksAtTheSameStepWhenTheLossIsNotFinite) {
  auto c = config("diverges");
  c.mesh = {1, 2};
  c.optimizer.lr = 1e30;
  c.optimizer.clip_norm = 0;
  c.optimizer.warmup_steps = 0;
  try {
    run(c);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_NE(e.message().find("is not finite"), std::string::npos) << e.message();
  }
}

TEST_F(TrainTest, SkipsStepsThatAreNotFiniteAndGivesUpAfterSomeInARow) {
  auto c = config("skips");
  c.mesh = {1, 2};
  c.optimizer.lr = 1e30;
  c.optimizer.clip_norm = 0;
  c.optimizer.warmup_steps = 0;
  c.bad_step = {config::BadStepAction::kSkip, 0, 4};
  try {
    run(c);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_THAT(e.message(), testing::AllOf(testing::HasSubstr("is not finite"), testing::HasSubstr("4 steps before it were skipped")));
  }
}

TEST_F(TrainTest, ARunThatSkipsSpikesResumesBitwise) {
  auto c = config("spikes");
  c.mesh = {2, 2};
  c.steps = 170;
  c.optimizer.schedule = config::LearningRateSchedule::kConstant;
  c.optimizer.lr = 1e-9;  // losses only scatter
  c.bad_step = {config::BadStepAction::kSkip, 0.2, 1000};  // every loss that is a little higher than most
  c.checkpoint = {10, 50, 0};
  const TrainSummary whole = run(c);
  const auto manifest = formats::read_manifest(fs::path(c.output) / "checkpoints" / "step-00000170").value();
  EXPECT_GT(manifest.skipped_steps, 0);
  EXPECT_EQ(manifest.recent_losses.size(), StepGuard::kWindow);

  auto resumed = c;
  resumed.output = (dir_.path() / "spikes-resumed").string();
  fs::copy(c.output, resumed.output, fs::copy_options::recursive);
  for (const int step : {170, 160, 150}) fs::remove_all(fs::path(resumed.output) / "checkpoints" / fmt::format("step-{:08d}", step));
  const TrainSummary tail = run(resumed, true);
  ASSERT_EQ(tail.losses.size(), 30u);
  for (size_t i = 0; i < 30; ++i) EXPECT_EQ(tail.losses[i], whole.losses[140 + i]) << i;
  expect_same_model(c, resumed);
}

TEST_F(TrainTest, StopsAfterAStepWhenAskedAndStillWritesTheModel) {
  auto c = config("stopped");
  const std::atomic<bool> stop{true};
  comm::spawn_ranks(1, [&](comm::Communicator& world) {
    const auto summary = train(c, world, {.resume = false, .auto_resume = false, .overwrite = false, .quiet = true, .on_finished = {}, .local_rank = world.rank(), .stop = &stop});
    EXPECT_TRUE(summary.stopped);
    EXPECT_EQ(summary.steps, 1);
  });
  EXPECT_TRUE(fs::exists(fs::path(c.output) / "model" / "config.json"));
}

TEST_F(TrainTest, WritesWhatARunFolderPromises) {
  auto c = config("folder");
  c.mesh = {2, 2};
  c.validation = {10, 1};
  run(c);
  const fs::path folder = c.output;
  for (const char* file : {"config.yaml", "metrics.jsonl", "loss.svg", "timeline.json", "model/config.json", "model/tokenizer.json",
                           "model/generation_config.json", "model/model.safetensors"}) {
    EXPECT_TRUE(fs::exists(folder / file)) << file;
  }
  const auto trace = ChromeTrace::parse(read_file(folder / "timeline.json", 1 << 28).value()).value();
  std::map<int, std::map<std::string, int>> categories;  // by rank
  for (const auto& event : trace.events()) ++categories[event.process][event.category];
  ASSERT_EQ(categories.size(), 4u) << "a row for each rank";
  for (const auto& [rank, count] : categories) {
    for (const char* category : {"forward", "backward", "send", "receive", "reduction"}) EXPECT_GT(count.count(category), 0u) << rank << " " << category;
  }
  std::ifstream metrics(folder / "metrics.jsonl");
  std::string line, last;
  while (std::getline(metrics, line)) last = line;
  const auto report = nlohmann::json::parse(last);
  EXPECT_EQ(report["step"], 20);
  EXPECT_GT(report["validation_loss"], 0.0);
  EXPECT_GE(report["bubble_share"], 0.0);
}

}  // namespace
}  // namespace penstock::train
