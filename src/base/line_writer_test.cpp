#include "base/line_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock {
namespace {

std::string content(const std::filesystem::path& file) { return read_file(file, 1 << 20).value(); }

TEST(LineWriter, WhatWasWrittenIsThereAtTheEnd) {
  const TempDir folder;
  {
    LineWriter writer;
    const size_t a = writer.open(folder.path() / "new" / "a.log"), b = writer.open(folder.path() / "b.log");
    writer.write(a, "one");
    writer.write(b, "%v {} is text");
    writer.write(a, "two");
  }
  EXPECT_EQ(content(folder.path() / "new" / "a.log"), "one\ntwo\n");
  EXPECT_EQ(content(folder.path() / "b.log"), "%v {} is text\n");
}

TEST(LineWriter, LinesOfSeveralThreadsStayWhole) {
  const TempDir folder;
  {
    LineWriter writer;
    const size_t file = writer.open(folder.path() / "a.log");
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 500; ++i) writer.write(file, "0123456789");
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_EQ(writer.lost(), 0u);
  }
  std::string expected;
  for (int i = 0; i < 2000; ++i) expected += "0123456789\n";
  EXPECT_EQ(content(folder.path() / "a.log"), expected);
}

TEST(LineWriter, AFileThatGrowsTooLongIsRotatedAndTheOldestGoes) {
  const TempDir folder;
  for (int i = 0; i < 5; ++i) {  // each at once, so that no batch joins them
    LineWriter writer({.max_file_bytes = 8, .kept_files = 2});
    writer.write(writer.open(folder.path() / "a.log"), "line " + std::to_string(i));
  }
  EXPECT_EQ(content(folder.path() / "a.log"), "line 4\n");
  EXPECT_EQ(content(folder.path() / "a.1.log"), "line 3\n");
  EXPECT_EQ(content(folder.path() / "a.2.log"), "line 2\n");
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "a.3.log"));
}

TEST(LineWriter, AFullDiskLosesItsLinesAndNoOthers) {
  const TempDir folder;
  std::filesystem::create_symlink("/dev/full", folder.path() / "full.log");
  {
    LineWriter writer;
    const size_t full = writer.open(folder.path() / "full.log"), good = writer.open(folder.path() / "good.log");
    writer.write(full, "lost");
    const Deadline deadline = Deadline::after(seconds(20));
    while (writer.lost() == 0 && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
    EXPECT_EQ(writer.lost(), 1u);
    writer.write(good, "kept");
  }
  EXPECT_EQ(content(folder.path() / "good.log"), "kept\n");
}

TEST(LineWriter, MoreThanMayWaitIsLost) {
  const TempDir folder;
  LineWriter writer({.max_waiting_bytes = 100});
  const size_t file = writer.open(folder.path() / "a.log");
  writer.write(file, std::string(100, 'x'));
  EXPECT_EQ(writer.lost(), 1u);
}

}  // namespace
}  // namespace penstock
