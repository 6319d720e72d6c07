#include "weights/hf_directory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/temp_dir.h"
#include "weights/hf_writer.h"

namespace penstock::weights {
namespace {

std::vector<NamedTensor> model() {
  return {{"embed", at::arange(6, at::kFloat)}, {"layer.0", at::full({10}, 2.0F)}, {"layer.1", at::full({10}, 3.0F)}, {"head", at::ones({2})}};
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
    return "";
  } catch (const Error& failed) {
    return failed.message();
  }
}

void expect_same(const HfDirectory& directory, const std::vector<NamedTensor>& tensors) {
  EXPECT_EQ(directory.names().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    ASSERT_TRUE(directory.has(name)) << name;
    EXPECT_TRUE(at::equal(directory.tensor(name), tensor)) << name;
  }
}

TEST(HfDirectory, ReadsWhatTheWriterWroteInShards) {
  const TempDir dir;
  write_hf_weights(dir.path(), model(), 48);
  EXPECT_TRUE(std::filesystem::exists(dir.path() / "model-00003-of-00003.safetensors"));
  expect_same(HfDirectory::open(dir.path()), model());
  const auto index = nlohmann::json::parse(read_file(dir.path() / "model.safetensors.index.json", 1 << 20).value());
  EXPECT_EQ(index["metadata"]["total_size"], 4 * (6 + 10 + 10 + 2));
}

TEST(HfDirectory, MapsOnlyTheShardsItIsAskedFor) {
  const TempDir dir;
  write_hf_weights(dir.path(), model(), 48);
  const HfDirectory directory = HfDirectory::open(dir.path());
  EXPECT_EQ(directory.num_open_files(), 0);
  (void)directory.tensor("layer.1");
  EXPECT_EQ(directory.num_open_files(), 1);
}

TEST(HfDirectory, ShardsOfSeveralWritersMakeOneModel) {
  for (const uint64_t max_shard_bytes : {111, 112}) {
    const TempDir dir;
    write_safetensors(dir.path() / "model.safetensors", {{"old", at::ones({1})}});
    write_file_atomic(dir.path() / "model.safetensors.index.json", "of an old model");
    write_shard(dir.path(), 1, 2, {model()[2], model()[3]});
    write_shard(dir.path(), 0, 2, {model()[0], model()[1]});
    finish_shards(dir.path(), 2, max_shard_bytes);
    expect_same(HfDirectory::open(dir.path()), model());
    EXPECT_EQ(std::filesystem::exists(dir.path() / "model.safetensors.index.json"), max_shard_bytes < 112) << "all tensors have 112 bytes";
    EXPECT_EQ(std::filesystem::exists(dir.path() / "model.safetensors"), max_shard_bytes >= 112);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), max_shard_bytes < 112 ? 3 : 1);
  }
}

TEST(HfDirectory, ATensorInTwoShardsIsRefusedNamingBoth) {
  const TempDir dir;
  write_shard(dir.path(), 0, 2, {model()[0]});
  write_shard(dir.path(), 1, 2, {model()[0]});
  const std::string message = message_of([&] { finish_shards(dir.path(), 2, 1); });
  EXPECT_NE(message.find("'embed' is in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors"), std::string::npos) << message;
}

TEST(HfDirectory, AMissingShardIsNamedAtOnce) {
  const TempDir dir;
  write_hf_weights(dir.path(), model(), 48);
  std::filesystem::remove(dir.path() / "model-00002-of-00003.safetensors");
  const std::string message = message_of([&] { (void)HfDirectory::open(dir.path()); });
  EXPECT_NE(message.find("model-00002-of-00003.safetensors is missing"), std::string::npos) << message;
}

TEST(HfDirectory, ATensorThatItsShardLacksIsNamedWithTheShard) {
  const TempDir dir;
  write_hf_weights(dir.path(), model(), 48);
  write_shard(dir.path(), 1, 3, {{"other", at::ones({10})}});
  const HfDirectory directory = HfDirectory::open(dir.path());
  const std::string message = message_of([&] { (void)directory.tensor("layer.0"); });
  EXPECT_NE(message.find("model-00002-of-00003.safetensors holds no tensor 'layer.0'"), std::string::npos) << message;
}

TEST(HfDirectory, AnIndexThatLeadsOutOfTheFolderIsRefused) {
  for (const std::string file : {"../x.safetensors", "/etc/passwd", "..", "a/b", ""}) {
    const TempDir dir;
    write_file_atomic(dir.path() / "model.safetensors.index.json", nlohmann::json{{"weight_map", {{"w", file}}}}.dump());
    const std::string message = message_of([&] { (void)HfDirectory::open(dir.path()); });
    EXPECT_NE(message.find("expected the name of a file in this folder"), std::string::npos) << file << ": " << message;
  }
}

TEST(HfDirectory, ABadIndexOrConfigIsRefusedWithTheFilesName) {
  for (const std::string text : {"", "{", "[]", "{\"weight_map\": 3}", "{\"weight_map\": {\"w\": 3}}"}) {
    const TempDir dir;
    write_file_atomic(dir.path() / "model.safetensors.index.json", text);
    EXPECT_NE(message_of([&] { (void)HfDirectory::open(dir.path()); }).find("model.safetensors.index.json: "), std::string::npos) << text;
  }
  const TempDir dir;
  EXPECT_NE(message_of([&] { (void)HfDirectory::open(dir.path()); }).find("holds no weights"), std::string::npos);
  EXPECT_NE(message_of([&] { (void)read_config_json(dir.path()); }).find("config.json"), std::string::npos);
  write_file_atomic(dir.path() / "config.json", "{\"a\": }");
  EXPECT_NE(message_of([&] { (void)read_config_json(dir.path()); }).find("error at byte 7"), std::string::npos);
  for (const char* number : {"NaN", "Infinity", "1e999"}) {  // Python writes the first two
    write_file_atomic(dir.path() / "config.json", fmt::format("{{\"a\": {}}}", number));
    EXPECT_NE(message_of([&] { (void)read_config_json(dir.path()); }).find("config.json: it is not JSON"), std::string::npos) << number;
  }
}

// Real files, where they are at hand: PENSTOCK_SHARED names the folder that holds data/models.
std::filesystem::path real_models() {
  const char* shared = std::getenv("PENSTOCK_SHARED");
  return std::filesystem::path(shared != nullptr ? shared : PENSTOCK_SOURCE_DIR "/../shared") / "data/models";
}

TEST(HfDirectory, ReadsARealSingleFileModel) {
  const std::filesystem::path folder = real_models() / "stories260K/hf";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder << "; set PENSTOCK_SHARED";
  const HfDirectory directory = HfDirectory::open(folder);
  EXPECT_EQ(read_config_json(folder)["hidden_size"], 64);
  EXPECT_EQ(directory.tensor("model.embed_tokens.weight").sizes(), (std::vector<int64_t>{512, 64}));
  for (const std::string& name : directory.names()) EXPECT_TRUE(at::isfinite(directory.tensor(name)).all().item<bool>()) << name;
}

TEST(HfDirectory, RealBf16ShardsHoldTheRoundedValuesOfTheF32File) {
  const std::filesystem::path folder = real_models() / "tiny_mistral";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder << "; set PENSTOCK_SHARED";
  const HfDirectory single = HfDirectory::open(folder);
  const HfDirectory sharded = HfDirectory::open(folder / "sharded_bf16");
  ASSERT_EQ(single.names(), sharded.names());
  for (const std::string& name : single.names()) {
    EXPECT_TRUE(at::equal(single.tensor(name).to(at::kBFloat16), sharded.tensor(name))) << name;
  }
}

}  // namespace
}  // namespace penstock::weights
