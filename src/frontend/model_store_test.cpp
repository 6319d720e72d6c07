#include "frontend/model_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A store with the models "small" and "big", and a folder without a model.
class ModelStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"small", "big", "notes"}) std::filesystem::create_directories(dir_.path() / "store" / name);
    std::filesystem::create_directories(dir_.path() / "outside");
    write_file_atomic(dir_.path() / "store/small/config.json", "{}");
    write_file_atomic(dir_.path() / "store/big/model-config.yaml", "minWorkers: 1\n");
  }
  ModelStore store() { return ModelStore::open(dir_.path() / "store").value(); }
  Result<std::vector<ModelFolder>> resolve(const std::vector<std::string>& arguments) { return resolve_models(store(), arguments); }
  TempDir dir_;
};

TEST_F(ModelStoreTest, ListsTheFoldersThatHoldAModel) { EXPECT_THAT(store().list(), ElementsAre("big", "small")); }

TEST_F(ModelStoreTest, ResolvesANameAndANameWithAFolder) {
  auto models = resolve({"small", "mine=big"});
  ASSERT_TRUE(models.ok());
  EXPECT_EQ(models->at(0).folder, dir_.path() / "store/small");
  EXPECT_EQ(models->at(1).name, "mine");
  EXPECT_EQ(models->at(1).folder, dir_.path() / "store/big");
}

TEST_F(ModelStoreTest, AllMeansEveryModelOfTheStore) {
  auto models = resolve({"all"});
  ASSERT_TRUE(models.ok());
  EXPECT_EQ(models->size(), 2u);
  EXPECT_EQ(resolve_models(std::nullopt, std::vector<std::string>{"all"}).error().code(), Code::kInvalidArgument);
}

TEST_F(ModelStoreTest, NothingOutsideTheStoreIsReached) {
  for (const std::string& folder : {std::string("../outside"), std::string("small/../../outside"), (dir_.path() / "outside").string()}) {
    auto models = resolve({"x=" + folder});
    ASSERT_FALSE(models.ok()) << folder;
    EXPECT_EQ(models.error().code(), Code::kInvalidArgument) << folder;
    EXPECT_THAT(models.error().message(), HasSubstr("inside the model store"));
  }
}

TEST_F(ModelStoreTest, ArchivesAreModelsToo) {
  for (const char* name : {"zipped.mar", "packed.tar.gz", "readme.txt"}) write_file_atomic(dir_.path() / "store" / name, "x");
  EXPECT_THAT(store().list(), ElementsAre("big", "packed.tar.gz", "small", "zipped.mar"));
  auto models = resolve({"zipped.mar", "packed", "mine=zipped.mar", "small"});
  ASSERT_TRUE(models.ok()) << models.error().message();
  EXPECT_EQ(models->at(0).name, "") << "its manifest names it";
  EXPECT_EQ(models->at(1).name, "packed");
  EXPECT_EQ(models->at(1).source, dir_.path() / "store/packed.tar.gz");
  EXPECT_EQ(models->at(2).name, "mine");
  EXPECT_EQ(resolve({"x=readme.txt"}).error().code(), Code::kNotFound);
}

TEST_F(ModelStoreTest, GgufFilesAreModelsToo) {
  write_file_atomic(dir_.path() / "store/tiny.gguf", "x");
  write_file_atomic(dir_.path() / "store/notes/a.gguf", "x");
  EXPECT_THAT(store().list(), ElementsAre("big", "notes", "small", "tiny.gguf"));
  auto models = resolve({"tiny", "mine=tiny.gguf", "tiny.gguf"});
  ASSERT_TRUE(models.ok()) << models.error().message();
  EXPECT_EQ(models->at(0).folder, dir_.path() / "store/tiny.gguf");
  EXPECT_EQ(models->at(1).name, "mine");
  EXPECT_EQ(models->at(2).name, "") << "as its file is called";
  const std::string path = (dir_.path() / "store/tiny.gguf").string();
  EXPECT_EQ(resolve_model(std::nullopt, path).value().folder, path);
  EXPECT_EQ(resolve_model(std::nullopt, path + ".gguf").error().code(), Code::kNotFound);
}

TEST_F(ModelStoreTest, AnAbsolutePathMayLeadIntoTheStore) {
  auto models = resolve({"x=" + (dir_.path() / "store/small").string()});
  ASSERT_TRUE(models.ok()) << models.error().message();
  EXPECT_EQ(models->at(0).source, dir_.path() / "store/small");
}

TEST_F(ModelStoreTest, AnUnknownModelIsAnErrorThatListsTheKnownOnes) {
  auto models = resolve({"smal"});
  ASSERT_FALSE(models.ok());
  EXPECT_EQ(models.error().code(), Code::kNotFound);
  EXPECT_THAT(models.error().message(), HasSubstr("big, small"));
}

TEST_F(ModelStoreTest, WithoutAStoreAFolderMustBeGivenAndExist) {
  const auto bare = resolve_models(std::nullopt, std::vector<std::string>{"small"});
  EXPECT_EQ(bare.error().code(), Code::kInvalidArgument);
  const auto missing = resolve_models(std::nullopt, std::vector<std::string>{"small=/no/such/folder"});
  EXPECT_EQ(missing.error().code(), Code::kNotFound);
  EXPECT_TRUE(resolve_models(std::nullopt, std::vector<std::string>{"o=" + (dir_.path() / "outside").string()}).ok());
}

TEST_F(ModelStoreTest, NamesThatCouldNotBePartOfAPathAreRefused) {
  for (const char* name : {"", ".hidden", "-x", "a/b", "a b", "a\nb"}) EXPECT_TRUE(check_model_name(name).has_value()) << name;
  for (const char* name : {"a", "Llama-3.1_8B"}) EXPECT_FALSE(check_model_name(name).has_value()) << name;
  EXPECT_FALSE(resolve({"small", "small=big"}).ok()) << "a name may be given once";
}

}  // namespace
}  // namespace penstock::frontend
