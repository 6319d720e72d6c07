#include "base/tensorboard.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <vector>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock {
namespace {

TEST(Crc32c, IsTheStandardsOwn) {
  // RFC 3720, B.4, and the usual check value.
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

template <typename T>
T read(std::string_view bytes, size_t at) {
  T value{};
  std::memcpy(&value, bytes.substr(at).data(), sizeof value);
  return value;
}

uint32_t unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xa282ead8u;
  return rotated >> 17 | rotated << 15;
}

std::vector<std::string> records_of(const std::string& file) {
  std::vector<std::string> records;
  for (size_t at = 0; at < file.size();) {
    const auto length = read<uint64_t>(file, at);
    EXPECT_EQ(unmasked(read<uint32_t>(file, at + 8)), crc32c(file.substr(at, 8)));
    records.push_back(file.substr(at + 12, length));
    EXPECT_EQ(unmasked(read<uint32_t>(file, at + 12 + length)), crc32c(records.back()));
    at += 16 + length;
  }
  return records;
}

TEST(TensorboardWriter, FramesAVersionAndThenTheScalarsOfEachStep) {
  const TempDir dir;
  {
    TensorboardWriter writer(dir.path() / "a" / "b");
    const std::pair<std::string_view, double> scalars[] = {{"loss", 1.5}, {"rate", -0.25}};
    writer.add(300, scalars);
  }
  std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(dir.path() / "a" / "b"), {});
  ASSERT_EQ(files.size(), 1u);
  EXPECT_TRUE(files[0].filename().string().starts_with("events.out.tfevents."));
  const auto records = records_of(read_file(files[0], 1 << 20).value());
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].substr(9), "\x1a\x0d" "brain.Event:2");
  // wall_time, step 300, summary of two values: "loss" and a float, "rate" and a float.
  EXPECT_EQ(records[1][0], '\x09');
  EXPECT_EQ(records[1].substr(9, 3), "\x10\xac\x02");
  const std::string summary = records[1].substr(12);
  ASSERT_EQ(summary.size(), 2u + 13 + 13);
  EXPECT_EQ(summary.substr(0, 10), "\x2a\x1a\x0a\x0b\x0a\x04loss");
  EXPECT_EQ(read<float>(summary, 11), 1.5f);
  EXPECT_EQ(read<float>(summary, 24), -0.25f);
}

TEST(TensorboardWriter, SaysWhichFileItCannotWrite) { EXPECT_THROW(TensorboardWriter("/proc/no/such"), Error); }

}  // namespace
}  // namespace penstock
