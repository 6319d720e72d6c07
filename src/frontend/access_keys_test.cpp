#include "frontend/access_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

class AccessKeysTest : public testing::Test {
 protected:
  AccessKeyOptions options(int failures_per_minute = 0) {
    return {folder_.path() / "key_file.json", std::chrono::minutes(60), failures_per_minute, [this] { return now_; }};
  }
  nlohmann::json file() { return nlohmann::json::parse(read_file(folder_.path() / "key_file.json", 1 << 16).value()); }
  std::string key(const char* name) { return file()[name]["key"]; }
  static bool passes(AccessKeys& access_keys, KeySet kinds, const std::string& authorization) {
    return !access_keys.check(kinds, authorization, "peer").has_value();
  }

  TempDir folder_;
  Clock::time_point now_{};
};

TEST_F(AccessKeysTest, TheFileHasTorchServesForm) {
  AccessKeys access_keys(options());
  access_keys.publish();
  const auto json = file();
  EXPECT_EQ(json.size(), 3u);
  std::set<std::string> keys;
  for (const char* name : {"management", "inference", "API"}) {
    const std::string key = json[name]["key"];
    EXPECT_EQ(key.size(), 43u) << "256 bits, 6 a letter";
    EXPECT_TRUE(std::all_of(key.begin(), key.end(), [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_'; })) << key.size();
    keys.insert(key);
  }
  EXPECT_EQ(keys.size(), 3u);
  for (const char* name : {"management", "inference"}) {
    EXPECT_THAT(json[name]["expiration time"], MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z"));
  }
  EXPECT_FALSE(json["API"].contains("expiration time"));
}

TEST_F(AccessKeysTest, TheFileIsReadableByItsOwnerOnlyAndGoesWithItsMaker) {
  const auto path = folder_.path() / "key_file.json";
  {
    AccessKeys access_keys(options());
    access_keys.publish();
    struct stat found{};
    ASSERT_EQ(::stat(path.c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 0777, 0600u);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1) << "nothing is left of writing it";
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(AccessKeysTest, AFileOfAnotherServerIsLeftAlone) {
  const auto path = folder_.path() / "key_file.json";
  {
    AccessKeys access_keys(options());
    access_keys.publish();
    write_file_atomic(path, "another server's");
  }
  EXPECT_EQ(read_file(path, 100).value(), "another server's");
}

TEST_F(AccessKeysTest, ALinkIsReplacedAndItsTargetLeftAlone) {
  write_file_atomic(folder_.path() / "victim", "mine");
  std::filesystem::create_symlink(folder_.path() / "victim", folder_.path() / "key_file.json");
  AccessKeys access_keys(options());
  access_keys.publish();
  EXPECT_EQ(read_file(folder_.path() / "victim", 100).value(), "mine");
  EXPECT_FALSE(std::filesystem::is_symlink(folder_.path() / "key_file.json"));
}

TEST_F(AccessKeysTest, EachKeyOpensItsOwnDoorOnly) {
  AccessKeys access_keys(options());
  access_keys.publish();
  const std::pair<const char*, KeySet> all[] = {{"management", kManagementKey}, {"inference", kInferenceKey}, {"API", kApiKey}};
  for (const auto& [name, own] : all) {
    for (const KeySet door : {kManagementKey, kInferenceKey, kApiKey}) {
      EXPECT_EQ(passes(access_keys, door, "Bearer " + key(name)), door == own) << name << " at " << door;
    }
  }
  EXPECT_TRUE(passes(access_keys, kManagementKey | kInferenceKey, "Bearer " + key("inference")));
  EXPECT_TRUE(passes(access_keys, kNoKey, ""));
}

TEST_F(AccessKeysTest, EveryWrongTokenIsRefusedInTorchServesWords) {
  AccessKeys access_keys(options());
  access_keys.publish();
  const std::string good = key("inference");
  for (const std::string& wrong : std::vector<std::string>{"", "Bearer", "Bearer ", "Bearer  ", "Basic " + good, good, "Bearer" + good, "Bearer " + good.substr(1),
                                   "Bearer " + good.substr(0, 42), "Bearer " + good + "x", "Bearer " + good + " x", "Bearer " + good + std::string(1, '\0'),
                                   "Bearer \xff\xfe", "Bearer " + std::string(1 << 20, 'A'), "Bearer\t" + good, "xBearer " + good}) {
    const auto refused = access_keys.check(kInferenceKey, wrong, "peer");
    ASSERT_TRUE(refused.has_value()) << wrong.substr(0, 100);
    EXPECT_EQ(refused->code(), Code::kPermissionDenied);
    EXPECT_EQ(refused->message(), "Token Authorization failed. Token either incorrect, expired, or not provided correctly");
  }
  EXPECT_THAT(access_keys.check(kApiKey, "", "peer")->message(), HasSubstr("Token Authentication failed."));
  EXPECT_TRUE(passes(access_keys, kInferenceKey, "bearer  " + good + " ")) << "the scheme has no case, and spaces do not count";
}

TEST_F(AccessKeysTest, KeysExpireButTheApiKey) {
  AccessKeys access_keys(options());
  access_keys.publish();
  const std::string inference = "Bearer " + key("inference"), api = "Bearer " + key("API");
  now_ += std::chrono::minutes(60) - milliseconds(1);
  EXPECT_TRUE(passes(access_keys, kInferenceKey, inference));
  now_ += milliseconds(1);
  EXPECT_FALSE(passes(access_keys, kInferenceKey, inference));
  EXPECT_TRUE(passes(access_keys, kApiKey, api));
}

TEST_F(AccessKeysTest, ANewKeyEndsTheOldOneAndLeavesTheOthers) {
  AccessKeys access_keys(options());
  access_keys.publish();
  const std::string inference = "Bearer " + key("inference"), management = "Bearer " + key("management");
  now_ += std::chrono::minutes(59);
  access_keys.renew(kInferenceKey);
  EXPECT_FALSE(passes(access_keys, kInferenceKey, inference));
  EXPECT_TRUE(passes(access_keys, kManagementKey, management));
  now_ += std::chrono::minutes(59);
  EXPECT_TRUE(passes(access_keys, kInferenceKey, "Bearer " + key("inference")));
  EXPECT_FALSE(passes(access_keys, kManagementKey, management));
}

TEST_F(AccessKeysTest, APeerThatFailsTooOftenIsNotListenedTo) {
  AccessKeys access_keys(options(5));
  access_keys.publish();
  const std::string good = "Bearer " + key("inference");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(access_keys.check(kInferenceKey, "Bearer x", "a")->code(), Code::kPermissionDenied);
  EXPECT_EQ(access_keys.check(kInferenceKey, good, "a")->code(), Code::kResourceExhausted) << "else it could go on guessing";
  EXPECT_FALSE(access_keys.check(kInferenceKey, good, "b").has_value());
  now_ += seconds(12);
  EXPECT_FALSE(access_keys.check(kInferenceKey, good, "a").has_value());
}

TEST_F(AccessKeysTest, AFileThatCannotBeWrittenIsAnError) {
  AccessKeyOptions nowhere = options();
  nowhere.file = folder_.path() / "no such folder" / "key_file.json";
  try {
    AccessKeys access_keys(nowhere);
    access_keys.publish();
    FAIL();
  } catch (const Error& failure) {
    EXPECT_EQ(failure.code(), Code::kUnavailable);
    EXPECT_THAT(failure.message(), HasSubstr("no such folder/key_file.json"));
  }
}

}  // namespace
}  // namespace penstock::frontend
