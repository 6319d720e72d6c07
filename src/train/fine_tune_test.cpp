// Training that starts from a Hugging Face directory and writes one: layouts, dtypes, files that are copied, resuming, and bad directories.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/file.h"
#include "base/temp_dir.h"
#include "comm/spawn_ranks.h"
#include "formats/checkpoint_folder.h"
#include "formats/safetensors_header.h"
#include "model/families.h"
#include "model/parameter_io.h"
#include "text/tokenizer.h"
#include "train/trainer.h"
#include "weights/hf_directory.h"
#include "weights/hf_writer.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

json qwen2() {
  return {{"architectures", {"Qwen2ForCausalLM"}}, {"model_type", "qwen2"}, {"vocab_size", 260}, {"hidden_size", 32}, {"num_hidden_layers", 2}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"intermediate_size", 64}, {"max_position_embeddings", 48}, {"rope_theta", 1e6}, {"rms_norm_eps", 1e-6},
          {"tie_word_embeddings", true}, {"initializer_range", 0.15}, {"eos_token_id", 256}, {"torch_dtype", "bfloat16"}, {"a_key_of_others", {1, 2}}};
}

class FineTuneTest : public testing::Test {
 protected:
  FineTuneTest() {
    at::set_num_threads(1);
    std::ofstream text(dir_.path() / "text");
    for (int i = 0; i < 300; ++i) text << "document " << i * i << " says: the quick brown fox jumps over " << i << " lazy dogs\n%\n";
  }

  // A directory as other tools write it, in two shards; tokens as bytes.
  fs::path write_model(const std::string& name, const json& config, at::ScalarType dtype = at::kBFloat16) const {
    const fs::path folder = dir_.path() / name;
    fs::create_directories(folder);
    write_file_atomic(folder / "config.json", config.dump(4));
    at::NoGradGuard no_grad;
    model::SharedWeights shared;
    std::vector<weights::NamedTensor> tensors;
    std::set<std::string> known;
    for (const auto& spec : model::transformer_layers(model::parse_transformer_config(config.dump(), name).value())) {
      for (model::Parameter& p : spec.build(shared)->parameters()) {
        if (!known.insert(p.name).second) continue;
        model::initialize(p, 5);
        if (p.init_std == 0) p.value.add_(0.25);  // no bias is zero
        for (auto& [stored, part] : model::stored_parts(p, p.value)) tensors.emplace_back(stored, part.to(dtype));
      }
    }
    weights::write_hf_weights(folder, tensors, 40000);
    text::write_tokenizer_files(folder);
    write_file_atomic(folder / "chat_template.jinja", "{{ messages }} \xC3\xA9");
    write_file_atomic(folder / "generation_config.json", "{ \"temperature\":0.25 }");
    return folder;
  }

  config::TrainConfig config(const std::string& name, const fs::path& model) const {
    config::TrainConfig c;
    c.model.path = model.string();
    c.data.paths = {(dir_.path() / "text").string()};
    c.batch = {2, 2, 32};
    c.optimizer.lr = 3e-3;
    c.optimizer.warmup_steps = 2;
    c.steps = 20;
    c.device = "cpu";
    c.precision = config::Precision::kFloat32;
    c.validation = {0, 1};
    c.output = (dir_.path() / name).string();
    c.timeout_seconds = 30;
    return c;
  }

  static TrainSummary run(const config::TrainConfig& c, bool resume = false) {
    TrainSummary summary;
    comm::spawn_ranks(c.world_size(), [&](comm::Communicator& world) {
      const TrainSummary mine = train(c, world, {.resume = resume, .quiet = true, .local_rank = world.rank()});
      if (world.rank() == 0) summary = mine;
    });
    return summary;
  }

  static std::string failure(const config::TrainConfig& c) {
    try {
      run(c);
      return "no error";
    } catch (const Error& e) {
      return e.message();
    }
  }

  static fs::path model_of(const config::TrainConfig& c) { return fs::path(c.output) / "model"; }
  static std::string content(const fs::path& file) { return read_file(file, 64 << 20).value(); }
  static void expect_same_weights(const fs::path& a, const fs::path& b) {
    const auto x = weights::HfDirectory::open(a), y = weights::HfDirectory::open(b);
    ASSERT_EQ(x.names(), y.names());
    for (const auto& name : x.names()) EXPECT_TRUE(x.tensor(name).dtype() == y.tensor(name).dtype() && x.tensor(name).equal(y.tensor(name))) << name;
  }

  TempDir dir_;
};

TEST_F(FineTuneTest, WhatIsNotTrainedComesBackBitForBitInEveryLayout) {
  for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    json described = qwen2();
    described["torch_dtype"] = dtype == at::kHalf ? "float16" : dtype == at::kFloat ? "float32" : "bfloat16";
    const fs::path source = write_model(fmt::format("source-{}", static_cast<int>(dtype)), described, dtype);
    for (const config::MeshConfig mesh : {config::MeshConfig{1, 1}, {2, 2}, {1, 4}}) {
      auto c = config(fmt::format("same-{}-{}", static_cast<int>(dtype), mesh.pipe), source);
      c.steps = 1;
      c.optimizer.lr = 1e-30;
      c.mesh = mesh;
      run(c);
      expect_same_weights(model_of(c), source);
      for (const char* file : {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json"}) {
        EXPECT_EQ(content(model_of(c) / file), content(source / file)) << file;
      }
    }
  }
}

TEST_F(FineTuneTest, EveryLayoutLearnsTheSameFromTheSameWeights) {
  const fs::path source = write_model("source", qwen2());
  auto single = config("single", source);
  single.batch.microbatches = 4;
  auto parallel = config("parallel", source);
  parallel.mesh = {2, 2};
  const auto a = run(single), b = run(parallel);
  ASSERT_EQ(a.losses.size(), 20u);
  ASSERT_EQ(b.losses.size(), 20u);
  for (size_t i = 0; i < 20; ++i) EXPECT_NEAR(a.losses[i], b.losses[i], 1e-5) << "step " << i;
  EXPECT_LT(a.losses.back(), a.losses.front() - 0.5) << "nothing was learned";
}

TEST_F(FineTuneTest, AFineTunedModelIsAModelToStartFrom) {
  const auto source = write_model("source", qwen2());
  auto first = config("first", source);
  first.model_export.dtype = config::ExportDtype::kFloat32;
  const auto before = run(first);
  const auto described = json::parse(content(model_of(first) / "config.json"));
  auto expected = qwen2();
  expected["torch_dtype"] = "float32";
  EXPECT_EQ(described, expected) << "only the dtype is another";
  const auto weights = weights::HfDirectory::open(model_of(first));
  EXPECT_EQ(weights.names(), weights::HfDirectory::open(source).names());
  EXPECT_EQ(weights.tensor("model.layers.1.self_attn.q_proj.bias").scalar_type(), at::kFloat);

  auto second = config("second", model_of(first));
  second.steps = 1;
  EXPECT_LT(run(second).losses.front(), before.losses.front() - 0.5) << "it goes on where the first one ended";
}

TEST_F(FineTuneTest, ResumesBitwiseAndExportsFromACheckpointWhatTheRunWrote) {
  const auto source = write_model("source", qwen2());
  auto whole = config("whole", source);
  whole.mesh = {2, 2};
  whole.checkpoint = {10, 5, 0};
  run(whole);
  auto resumed = whole;
  resumed.output = (dir_.path() / "resumed").string();
  fs::copy(whole.output, resumed.output, fs::copy_options::recursive);
  fs::remove_all(fs::path(resumed.output) / "checkpoints" / "step-00000020");
  fs::remove_all(model_of(resumed));
  EXPECT_EQ(run(resumed, true).losses.size(), 10u);
  expect_same_weights(model_of(whole), model_of(resumed));

  const fs::path exported = dir_.path() / "exported";
  formats::export_checkpoint(fs::path(whole.output) / "checkpoints" / "step-00000020", exported, {}, 30000);
  EXPECT_TRUE(fs::exists(exported / "model.safetensors.index.json")) << "in shards of at most 30000 bytes";
  expect_same_weights(exported, model_of(whole));
  for (const char* file : {"config.json", "tokenizer.json", "chat_template.jinja", "generation_config.json"}) {
    EXPECT_EQ(content(exported / file), content(source / file)) << file;
  }
}

TEST_F(FineTuneTest, AModelThatWasReplacedMeanwhileIsNotResumed) {
  const auto source = write_model("source", qwen2());
  auto c = config("replaced", source);
  c.steps = 2;
  c.checkpoint = {1, 5, 0};
  run(c);
  const auto resumed_with = [&](const std::string& key, const json& value) -> std::string {
    json changed = qwen2();
    changed[key] = value;
    write_file_atomic(source / "config.json", changed.dump());
    try {
      run(c, true);
      return "resumed";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), Code::kInvalidArgument);
      return e.message();
    }
  };
  EXPECT_THAT(resumed_with("rope_theta", 10000.0), AllOf(HasSubstr("step-00000002 is of another model"), HasSubstr("rope_theta 10000 (before: 1000000)")));
  EXPECT_THAT(resumed_with("rms_norm_eps", 0.5), HasSubstr("rms_norm_eps 0.5 (before: 1e-06)"));
  EXPECT_THAT(resumed_with("rope_scaling", {{"type", "linear"}, {"factor", 2.0}}), HasSubstr("rope_scaling linear (factor 2,"));
  EXPECT_EQ(resumed_with("a_key_of_others", 3), "resumed");
  EXPECT_EQ(resumed_with("max_position_embeddings", 64), "resumed") << "the same weights compute the same";
  std::string tokenizer = content(source / "tokenizer.json");
  json vocabulary = json::parse(tokenizer);
  std::swap(vocabulary["model"]["vocab"]["a"], vocabulary["model"]["vocab"]["b"]);
  write_file_atomic(source / "tokenizer.json", vocabulary.dump());
  EXPECT_THAT(resumed_with("max_position_embeddings", 48), HasSubstr("step-00000002 was trained with another tokenizer"));
}

TEST_F(FineTuneTest, AShapeThatDisagreesIsRefusedWithBothValues) {
  auto c = config("shape", write_model("source", qwen2()));
  c.model.num_layers = 3;
  c.model.given = {"model.num_layers"};
  EXPECT_THAT(failure(c), AllOf(HasSubstr("'model.num_layers': 3 is given"), HasSubstr("config.json says 2")));
  c.model.num_layers = 2;
  c.model.rope_theta = 10000;
  c.model.given = {"model.num_layers", "model.rope_theta"};
  EXPECT_THAT(failure(c), AllOf(HasSubstr("'model.rope_theta': 10000 is given"), HasSubstr("says 1000000")));
  c.model.given = {};
  c.batch.sequence_length = 49;
  EXPECT_THAT(failure(c), AllOf(HasSubstr("'batch.sequence_length': expected at most 48"), HasSubstr("found 49")));
}

TEST_F(FineTuneTest, ADirectoryThatIsNoneIsRefused) {
  EXPECT_THAT(failure(config("none", dir_.path() / "nowhere")), HasSubstr("nowhere does not exist or is not a folder"));
  EXPECT_THAT(failure(config("file", dir_.path() / "text")), HasSubstr("text does not exist or is not a folder"));
  const auto source = write_model("source", qwen2());
  fs::remove(source / "tokenizer.json");
  EXPECT_THAT(failure(config("no-tokenizer", source)), HasSubstr("tokenizer.json"));
  fs::remove(source / "config.json");
  EXPECT_THAT(failure(config("no-config", source)), HasSubstr("config.json"));
}

TEST_F(FineTuneTest, FilesThatDoNotBelongTogetherAreRefusedByName) {
  const auto changed = [&](const char* name, const json& change) {
    const auto source = write_model(name, qwen2());
    json described = qwen2();
    described.update(change);
    write_file_atomic(source / "config.json", described.dump());
    return failure(config(std::string("run-") + name, source));
  };
  EXPECT_THAT(changed("wider", {{"intermediate_size", 96}}), AllOf(HasSubstr("tensor 'model.layers.0.mlp.gate_proj.weight'"), HasSubstr("expected shape [96, 32], found [64, 32]")));
  EXPECT_THAT(changed("deeper", {{"num_hidden_layers", 3}}), HasSubstr("holds no tensor 'model.layers.2."));
  EXPECT_THAT(changed("shallower", {{"num_hidden_layers", 1}}), AllOf(HasSubstr("tensor 'model.layers.1."), HasSubstr("config.json, with 1 layers")));
  EXPECT_THAT(changed("llama", {{"architectures", {"LlamaForCausalLM"}}}), AllOf(HasSubstr("tensor 'model.layers.0.self_attn.k_proj.bias'"), HasSubstr("no place in LlamaForCausalLM")));
  EXPECT_THAT(changed("untied", {{"tie_word_embeddings", false}}), HasSubstr("holds no tensor 'lm_head.weight'"));
  EXPECT_THAT(changed("vocabulary", {{"vocab_size", 256}}), AllOf(HasSubstr("has 257 tokens"), HasSubstr("a vocab_size of 256")));
}

TEST_F(FineTuneTest, DamagedWeightsAreRefusedByName) {
  const auto source = write_model("source", qwen2());
  const fs::path shard = source / "model-00002-of-00002.safetensors";
  ASSERT_TRUE(fs::exists(shard)) << "the test wants two shards";
  const std::string whole = content(shard);
  write_file_atomic(shard, whole.substr(0, whole.size() - 10));
  EXPECT_THAT(failure(config("cut", source)), HasSubstr("model-00002-of-00002.safetensors"));
  auto header = formats::parse_safetensors_header({reinterpret_cast<const std::byte*>(whole.data()), whole.size()}, "shard");
  for (auto& tensor : header.tensors) tensor.dtype = "F8_E4M3";
  const size_t elements = (header.tensors.back().end - header.tensors.front().begin) / 2;
  write_file_atomic(shard, formats::format_safetensors_header(header.tensors, {}) + std::string(elements, '\0'));
  EXPECT_THAT(failure(config("dtype", source)), AllOf(HasSubstr("tensor 'model.layers.1."), HasSubstr("has dtype F8_E4M3; expected one of F32, F16, BF16")));
  fs::remove(shard);
  EXPECT_THAT(failure(config("missing", source)), HasSubstr("model-00002-of-00002.safetensors is missing"));
}

}  // namespace
}  // namespace penstock::train
