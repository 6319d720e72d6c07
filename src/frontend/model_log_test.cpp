#include "frontend/model_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/temp_dir.h"

namespace penstock::frontend {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::MatchesRegex;

class ModelLogTest : public testing::Test {
 protected:
  void append(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((dir.path() / name).parent_path());
    std::ofstream(dir.path() / name, std::ios::app | std::ios::binary) << text;
  }
  // What is written between now and the end of `during`: the destructor looks a last time.
  std::vector<std::string> lines(const std::function<void()>& during) {
    std::vector<std::string> found;
    {
      ModelLog log(dir.path(), [&found](std::string_view line) { found.emplace_back(line); });
      during();
    }
    return found;
  }
  TempDir dir;
};

TEST_F(ModelLogTest, LinesOfAllWorkersComeWithTheirNames) {
  append("tiny-0/rank-0.log", "old\n");
  const auto found = lines([&] {
    append("tiny-0/rank-0.log", "one\ntwo\nno end");
    append("tiny:2.0-1/rank-1.log", "three\n");
    append("other.log", "not a rank's\n");
    append("config/rank-0.log", "not a group's\n");
  });
  EXPECT_THAT(found, testing::UnorderedElementsAre(MatchesRegex("....-..-..T..:..:..,... \\[INFO \\] W-9000-tiny_1.0-stdout MODEL_LOG - one"), EndsWith(" - two"),
                                                   EndsWith("W-9001-tiny_2.0-stdout MODEL_LOG - three")));
}

TEST_F(ModelLogTest, ALongLineIsCutAndTooMuchIsNamed) {
  const auto found = lines([&] { append("tiny-0/rank-0.log", std::string(20000, 'x') + "\n"); });
  ASSERT_EQ(found.size(), 2u);
  EXPECT_THAT(found[1], EndsWith("MODEL_LOG - " + std::string(20000 - (16 << 10), 'x')));
}

TEST_F(ModelLogTest, AFileThatWasEmptiedIsReadFromItsBegin) {
  append("tiny-0/rank-0.log", "a long line that was there before\n");
  EXPECT_THAT(lines([&] {
                std::filesystem::resize_file(dir.path() / "tiny-0/rank-0.log", 0);
                append("tiny-0/rank-0.log", "new\n");
              }),
              ElementsAre(EndsWith(" - new")));
}

TEST(WorkerOfFolder, IsTorchServesName) {
  EXPECT_EQ(worker_of_folder("tiny-0"), "W-9000-tiny_1.0");
  EXPECT_EQ(worker_of_folder("my-model-12"), "W-9012-my-model_1.0");
  EXPECT_EQ(worker_of_folder("tiny:1.5-2"), "W-9002-tiny_1.5");
  for (const char* other : {"config", "tiny-", "-0", "tiny-x", ""}) EXPECT_EQ(worker_of_folder(other), "") << other;
}

}  // namespace
}  // namespace penstock::frontend
