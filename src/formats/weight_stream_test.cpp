#include "formats/weight_stream.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/temp_dir.h"
#include "formats/model_folder.h"

namespace penstock::formats {
namespace {

std::vector<TensorEntry> tensors() { return {{"a", "F32", {3, 2}}, {"b", "BF16", {4}}, {"empty", "F32", {0, 5}}, {"c", "F32", {2}}}; }

void write(const TempDir& dir, uint64_t max_shard_bytes) {
  WeightStream stream(dir.path(), tensors(), max_shard_bytes);
  for (const size_t bytes : {24, 8, 0, 8}) stream.add(std::vector<std::byte>(bytes, std::byte(bytes)));
  stream.finish();
}

TEST(WeightStream, WritesOneFileWhenAllFits) {
  const TempDir dir;
  write(dir, 40);
  EXPECT_FALSE(std::filesystem::exists(dir.path() / "model.safetensors.index.json"));
  const auto found = list_model_tensors(dir.path()).value();
  ASSERT_EQ(found.size(), 4u);
  EXPECT_EQ(found[1].name, "b");
  EXPECT_EQ(read_file(dir.path() / "model.safetensors", 1 << 20).value().substr(found[1].begin, 8), std::string(8, '\x08'));
}

TEST(WeightStream, CutsShardsBeforeTheTensorThatIsTooMuch) {
  const TempDir dir;
  write(dir, 32);
  const auto index = nlohmann::json::parse(read_file(dir.path() / "model.safetensors.index.json", 1 << 20).value());
  EXPECT_EQ(index["metadata"]["total_size"], 40);
  EXPECT_EQ(index["weight_map"]["a"], "model-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["b"], "model-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["c"], "model-00002-of-00002.safetensors");
  EXPECT_EQ(list_model_tensors(dir.path()).value().size(), 4u);
}

TEST(WeightStream, GivesALargeTensorAShardOfItsOwn) {
  const TempDir dir;
  write(dir, 1);
  EXPECT_TRUE(std::filesystem::exists(dir.path() / "model-00003-of-00003.safetensors"));
  EXPECT_EQ(list_model_tensors(dir.path()).value().size(), 4u);
}

}  // namespace
}  // namespace penstock::formats
