#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "base/temp_dir.h"

namespace penstock {
namespace {

TEST(File, WritesThenReadsBack) {
  TempDir dir;
  write_file_atomic(dir.path() / "a", "one");
  write_file_atomic(dir.path() / "a", "two");
  EXPECT_EQ(read_file(dir.path() / "a", 100).value(), "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1) << "no temporary file is left";
}

TEST(File, RefusesWhatIsTooLargeAFolderOrAbsent) {
  TempDir dir;
  write_file_atomic(dir.path() / "a", "12345");
  EXPECT_EQ(read_file(dir.path() / "a", 4).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(read_file(dir.path(), 4).error().code(), Code::kInvalidArgument);
  EXPECT_EQ(read_file(dir.path() / "none", 4).error().code(), Code::kNotFound);
  EXPECT_EQ(read_file(dir.path() / "a" / "none", 4).error().code(), Code::kNotFound);
  EXPECT_EQ(read_file(dir.path() / std::string(1000, 'x'), 4).error().code(), Code::kNotFound);
}

TEST(File, APipeIsReadToItsEndAndNeverMapped) {
  TempDir dir;
  const auto pipe = dir.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_FALSE(MappedFile::open(pipe).ok()) << "and at once";
  std::thread writer([&] {
    const int fd = ::open(pipe.c_str(), O_WRONLY);  // waits for the reader
    EXPECT_EQ(::write(fd, "one ", 4), 4);
    EXPECT_EQ(::write(fd, "two", 3), 3);
    ::close(fd);
  });
  EXPECT_EQ(read_file(pipe, 100).value(), "one two");
  writer.join();
}

TEST(File, AWriteThatFailsLeavesNothing) {
  TempDir dir;
  std::filesystem::create_directory(dir.path() / "a");
  EXPECT_THROW(write_file_atomic(dir.path() / "a", "x"), Error) << "a folder is not replaced";
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

TEST(File, SaysWhyAWriteFailed) {
  try {
    write_file_atomic("/proc/nowhere/file", "x");
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), Code::kDataLoss);
    EXPECT_NE(e.message().find("/proc/nowhere/file"), std::string::npos) << e.message();
  }
}

TEST(File, MapsBytes) {
  TempDir dir;
  write_file_atomic(dir.path() / "a", "abc");
  MappedFile map = MappedFile::open(dir.path() / "a").value();
  EXPECT_EQ(map.bytes().size(), 3u);
  EXPECT_EQ(map.bytes()[1], std::byte('b'));
  EXPECT_FALSE(MappedFile::open(dir.path() / "none").ok());
}

}  // namespace
}  // namespace penstock
