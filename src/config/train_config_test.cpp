#include "config/train_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace penstock::config {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kSmallest = R"(
model: {hidden_size: 64, num_layers: 2, num_heads: 4, intermediate_size: 128}
data: {path: text}
steps: 10
output: run
)";

std::string refusal(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  const Result<TrainConfig> config = parse_train_config(yaml, "t.yaml", overrides);
  return config.ok() ? "accepted" : config.error().message();
}

TEST(TrainConfig, ConversationsAreKeptApart) {
  EXPECT_THAT(refusal(kSmallest, {"data.format=chat"}), HasSubstr("key 'data.packing'"));
  EXPECT_EQ(refusal(kSmallest, {"data.format=chat", "data.packing=whole"}), "accepted");
}

TEST(TrainConfig, FillsInDefaults) {
  const TrainConfig config = parse_train_config(kSmallest, "t").value();
  EXPECT_EQ(config.model.num_kv_heads, 4) << "as num_heads";
  EXPECT_EQ(config.model.max_position_embeddings, 128) << "as sequence_length";
  EXPECT_THAT(config.data.paths, ElementsAre("text"));
  EXPECT_EQ(config.data.separator, "%");
  EXPECT_EQ(config.schedule, "1f1b");
  EXPECT_EQ(config.world_size(), 1);
  EXPECT_EQ(config.optimizer.beta2, 0.95);
}

// Every key with a value that is not its default.
constexpr const char* kEverything = R"(
model:
  hidden_size: 96
  num_layers: 5
  num_heads: 6
  num_kv_heads: 3
  intermediate_size: 200
  max_position_embeddings: 512
  rope_theta: 5e5
  rms_norm_eps: 1e-6
  tie_word_embeddings: false
data:
  path: [one, "two words"]
  validation_path: three
  format: jsonl
  text_key: body
  packing: whole
  separator: ""
  validation_fraction: 0.2
mesh: {data: 3, pipe: 7}
schedule: gpipe
partition: uniform
batch: {microbatches: 8, microbatch_size: 2, sequence_length: 256}
optimizer: {lr: 3e-4, min_lr_ratio: 0.05, warmup_steps: 20, beta1: 0.8, beta2: 0.99, eps: 1e-7, weight_decay: 0.2, clip_norm: 0.5,
  name: lars, schedule: wsd, decay_fraction: 0.3, momentum: 0.8, trust_coefficient: 0.01, decay_groups: ["norm=0", embed=0.01]}
steps: 1000
max_seconds: 120.5
precision: bf16
seed: 9000000000
validation: {every_steps: 11, batches: 3}
checkpoint: {every_steps: 13, keep: 4}
bad_step: {action: skip, loss_spike: 7, max_skips: 3}
export: {dtype: bf16}
bucket_mib: 2.5
sharding: optimizer
unused_parameters: error
reduce_dtype: bf16
network: {interface: eth7, master_port: 4711, connect_timeout_seconds: 300}
output: run/a
timeout_seconds: 7.5
stuck_step_seconds: 3.5
omp_threads: 2
)";

TEST(TrainConfig, ReadsTheOlderWordForAShardedOptimizer) {
  EXPECT_EQ(parse_train_config(kSmallest, "t").value().sharding, Sharding::kNone);
  const TrainConfig config = parse_train_config(kSmallest, "t", {"optimizer.shard=true"}).value();
  EXPECT_EQ(config.sharding, Sharding::kOptimizer);
  EXPECT_FALSE(config.optimizer.shard);
  EXPECT_EQ(parse_train_config(kSmallest, "t", {"optimizer.shard=true", "sharding=parameters"}).value().sharding, Sharding::kParameters);
  EXPECT_THAT(refusal(kSmallest, {"sharding=zero3"}), HasSubstr("'sharding'"));
}

TEST(TrainConfig, RefusesDecayGroupsThatAreNone) {
  for (const char* group : {"norm", "=1", "norm=", "norm=-1", "norm=1x", "norm=nan", "(=1"}) {
    EXPECT_THAT(refusal(kSmallest, {std::string("optimizer.decay_groups=") + group}), HasSubstr("optimizer.decay_groups")) << group;
  }
}

TEST(TrainConfig, RefusesOverlongTextsAndRepeatsNoneWhole) {
  const std::string text(100000, '(');
  const TrainConfig known = parse_train_config(kSmallest, "t").value();
  for (const auto& [key, value] : key_values(known)) {
    if (!value.starts_with('"') && !value.starts_with('[')) continue;
    const std::string said = refusal(kSmallest, {key + "=" + text});
    EXPECT_THAT(said, HasSubstr(key));
    EXPECT_LT(said.size(), 400u) << key;
  }
  EXPECT_THAT(refusal(kSmallest, {"optimizer.decay_groups=" + text.substr(0, 1001) + "=1"}), HasSubstr("at most 1000 bytes, found 1001")) << "the compiler of expressions recurses";
  EXPECT_LT(refusal(kSmallest, {"optimizer.decay_groups=" + text.substr(0, 1000) + "=1"}).size(), 400u);
  EXPECT_EQ(refusal(kSmallest, {"output=" + std::string(4096, 'x')}), "accepted");
}

TEST(TrainConfig, IsAFileThatEachRankReads) {
  EXPECT_THAT(load_train_config("/dev/zero").error().message(), HasSubstr("/dev/zero is a pipe or a device; expected a file"));
  EXPECT_THAT(load_train_config("/tmp").error().message(), HasSubstr("/tmp is a folder; expected a file"));
  EXPECT_EQ(load_train_config("/nowhere").error().code(), Code::kNotFound);
}

constexpr const char* kFineTuning = R"(
model: {path: some/model}
data: {path: text}
steps: 10
output: run
)";

TEST(TrainConfig, AModelToStartFromNeedsNoShape) {
  const TrainConfig config = parse_train_config(kFineTuning, "t").value();
  EXPECT_EQ(config.model.path, "some/model");
  EXPECT_TRUE(config.model.given.empty());
  EXPECT_EQ(config.model_export.dtype, ExportDtype::kAuto);
  const std::string printed = to_yaml(config);
  EXPECT_EQ(printed.find("hidden_size"), std::string::npos) << printed;
  EXPECT_EQ(to_yaml(parse_train_config(printed, "again").value()), printed);
}

TEST(TrainConfig, RemembersWhichShapeKeysStandBesideAModelToStartFrom) {
  const TrainConfig config = parse_train_config(kFineTuning, "t", {"model.num_layers=3", "model.tie_word_embeddings=false", "batch.sequence_length=64"}).value();
  EXPECT_THAT(config.model.given, ElementsAre("model.num_layers", "model.tie_word_embeddings"));
  const TrainConfig again = parse_train_config(to_yaml(config), "again").value();
  EXPECT_TRUE(again.model == config.model);
}

TEST(TrainConfig, TakesAnInterfaceOrAHostnameButNotBoth) {
  EXPECT_EQ(parse_train_config(kSmallest, "t", {"network.hostname=node1"}).value().network.hostname, "node1");
  EXPECT_THAT(refusal(kSmallest, {"network.hostname=node1", "network.interface=eth0"}), HasSubstr("network.hostname"));
  EXPECT_THAT(refusal(kSmallest, {"network.master_port=65536"}), HasSubstr("network.master_port"));
  EXPECT_THAT(refusal(kSmallest, {"network.connect_timeout_seconds=0"}), HasSubstr("network.connect_timeout_seconds"));
  EXPECT_THAT(refusal(kSmallest, {"reduce_dtype=bf16", "sharding=gradients"}), HasSubstr("reduce_dtype"));
  EXPECT_THAT(refusal(kSmallest, {"reduce_dtype=bf16", "sharding=gradients", "model.path=/m"}), HasSubstr("reduce_dtype")) << "also of a model that is there";
  EXPECT_THAT(refusal(kSmallest, {"reduce_dtype=fp16"}), HasSubstr("reduce_dtype"));
  for (const char* device : {"auto", "cpu", "cuda", "cuda:0", "cuda:12"}) EXPECT_EQ(refusal(kSmallest, {fmt::format("device={}", device)}), "accepted");
  for (const char* device : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:00000", "CPU"}) {
    EXPECT_THAT(refusal(kSmallest, {fmt::format("device={}", device)}), HasSubstr("key 'device': expected auto, cpu, cuda or cuda:N, found"));
  }
  EXPECT_EQ(parse_train_config(kSmallest, "t", {"precision=fp16", "fp16.first_scale=1024"}).value().fp16.first_scale, 1024);
  EXPECT_THAT(refusal(kSmallest, {"fp16.first_scale=0.5"}), HasSubstr("fp16.first_scale"));
}

TEST(TrainConfig, PrintsTheWholeTreeSoThatItReadsBackTheSame) {
  const TrainConfig config = parse_train_config(kEverything, "t").value();
  const std::string printed = to_yaml(config);
  const Result<TrainConfig> again = parse_train_config(printed, "printed");
  ASSERT_TRUE(again.ok()) << again.error().message() << "\n" << printed;
  EXPECT_EQ(to_yaml(again.value()), printed);
  EXPECT_EQ(again.value().model.rope_theta, 5e5);
  EXPECT_EQ(again.value().optimizer.eps, 1e-7);
  EXPECT_EQ(again.value().stuck_step_seconds, 3.5);
  EXPECT_EQ(again.value().seed, 9'000'000'000);
  EXPECT_EQ(again.value().optimizer.name, OptimizerName::kLars);
  EXPECT_EQ(again.value().optimizer.schedule, LearningRateSchedule::kWarmupStableDecay);
  EXPECT_THAT(again.value().optimizer.decay_groups, ElementsAre("norm=0", "embed=0.01"));
  EXPECT_EQ(again.value().data.separator, "");
  EXPECT_THAT(again.value().data.paths, ElementsAre("one", "two words"));
  EXPECT_EQ(again.value().world_size(), 21);
  EXPECT_EQ(again.value().precision, Precision::kBfloat16);
}

TEST(TrainConfig, TwoThatDifferDifferInTheirKeyValues) {
  const auto one = key_values(parse_train_config(kEverything, "t").value());
  auto other = key_values(parse_train_config(kEverything, "t", {"optimizer.lr=0.5"}).value());
  ASSERT_EQ(one.size(), other.size());
  const auto found = std::mismatch(one.begin(), one.end(), other.begin());
  ASSERT_NE(found.first, one.end());
  EXPECT_EQ(found.first->first, "optimizer.lr");
  EXPECT_EQ(found.second->second, "0.5");
  *found.second = *found.first;
  EXPECT_EQ(one, other) << "and in nothing else";
}

TEST(TrainConfig, EveryKeyCanBeSetByAnOverride) {
  // Given a config of defaults, when every line of the full config is given as an override, then both print the same.
  const std::string full = to_yaml(parse_train_config(kEverything, "t").value());
  TrainConfig config;
  std::istringstream lines(full);
  std::string section;
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    line = line.substr(0, line.find("  #"));
    line.erase(line.find_last_not_of(' ') + 1);
    const bool nested = line.rfind("  ", 0) == 0;
    if (line.back() == ':') {
      section = line.substr(0, line.size() - 1);
      continue;
    }
    const size_t colon = line.find(": ");
    const std::string key = nested ? section + "." + line.substr(2, colon - 2) : line.substr(0, colon);
    const auto problem = apply_override(config, key + "=" + line.substr(colon + 2));
    EXPECT_EQ(problem, std::nullopt) << problem->message();
  }
  EXPECT_EQ(to_yaml(config), full);
  EXPECT_GT(count, 40);
}

TEST(TrainConfig, AppliesOverridesBeforeItChecksTheWhole) {
  const TrainConfig config =
      parse_train_config("data: {path: x}\nsteps: 1\n", "t",
                         {"model.hidden_size=32", "model.num_layers=1", "model.num_heads=2", "model.intermediate_size=8", "output=o",
                          "data.separator=%%", "data.path=[a, b]", "steps=3"})
          .value();
  EXPECT_EQ(config.steps, 3);
  EXPECT_EQ(config.data.separator, "%%");
  EXPECT_THAT(config.data.paths, ElementsAre("a", "b"));
}

TEST(TrainConfig, RefusesABadOverrideAndLeavesTheConfigAlone) {
  TrainConfig config;
  EXPECT_EQ(apply_override(config, "batch.microbatches=0")->message(),
            "--set: key 'batch.microbatches': expected an integer from 1 to 65536, found '0'");
  EXPECT_EQ(apply_override(config, "batch.microbatch=8")->message(),
            "--set: unknown key 'batch.microbatch'; did you mean 'batch.microbatches'?");
  EXPECT_EQ(apply_override(config, "lr=1")->message(), "--set: unknown key 'lr'; did you mean 'optimizer.lr'?");
  EXPECT_EQ(apply_override(config, "steps")->message(), "--set: expected key=value, found 'steps'");
  EXPECT_EQ(apply_override(config, "mesh=3")->message(), "--set: key 'mesh': expected a map, found '3'");
  EXPECT_THAT(apply_override(config, "data.path=[a")->message(), HasSubstr("--set:"));
  EXPECT_EQ(to_yaml(config), to_yaml(TrainConfig{}));
}

TEST(TrainConfig, SaysWhichRequiredKeyIsMissing) {
  EXPECT_EQ(refusal(""), "t.yaml: key 'model.hidden_size': required, but not given");
  EXPECT_EQ(refusal(kSmallest, {"data.path=[]"}), "t.yaml: key 'data.path': required, but not given");
  EXPECT_EQ(refusal(kSmallest, {"steps=0"}), "t.yaml: key 'steps': expected an integer >= 1, or max_seconds > 0, found neither");
  EXPECT_EQ(refusal(kSmallest, {"steps=0", "max_seconds=1"}), "accepted");
}

TEST(TrainConfig, ChecksThatKeysFitEachOther) {
  EXPECT_EQ(refusal(kSmallest, {"model.num_heads=5"}), "t.yaml: key 'model.num_heads': expected a divisor of hidden_size 64, found 5");
  EXPECT_THAT(refusal(kSmallest, {"model.num_heads=64"}), HasSubstr("must be even"));
  EXPECT_EQ(refusal(kSmallest, {"model.num_kv_heads=3"}), "t.yaml: key 'model.num_kv_heads': expected a divisor of num_heads 4, found 3");
  EXPECT_THAT(refusal(kSmallest, {"mesh.pipe=5"}), HasSubstr("key 'mesh.pipe': expected at most 4 stages"));
  EXPECT_EQ(refusal(kSmallest, {"mesh.pipe=4"}), "accepted");
  EXPECT_THAT(refusal(kSmallest, {"model.max_position_embeddings=64"}), HasSubstr("key 'batch.sequence_length': expected at most"));
}

TEST(TrainConfig, SaysFileLineAndKey) {
  EXPECT_EQ(refusal("model:\n  hidden_size: wide\n"),
            "t.yaml:2: key 'model.hidden_size': expected an integer from 1 to 1048576, found 'wide'");
  EXPECT_EQ(refusal("optimizer: {beta1: 1}\n"), "t.yaml:1: key 'optimizer.beta1': expected a number >= 0 and < 1, found '1'");
  EXPECT_EQ(refusal("shedule: gpipe\n"), "t.yaml:1: unknown key 'shedule'; did you mean 'schedule'?");
  EXPECT_EQ(load_train_config("/nowhere.yaml").error().code(), Code::kNotFound);
}

}  // namespace
}  // namespace penstock::config
