#include "data/token_shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::data {
namespace {

namespace fs = std::filesystem;

class TokenShard : public testing::Test {
 protected:
  fs::path file() const { return dir_.path() / "a.tokens"; }
  // Documents of 1, 2, 3, ... tokens counting up from 0.
  void write(uint32_t token_bytes, uint32_t documents, bool has_context = false) {
    fs::remove(file());
    ShardWriter writer(file(), token_bytes, has_context, 77);
    uint32_t next = 0;
    for (uint32_t d = 0; d < documents; ++d) {
      std::vector<uint32_t> tokens(d + 1);
      for (uint32_t& token : tokens) token = next++;
      if (has_context) tokens[0] |= kNoTarget;
      writer.add_document(tokens, 10);
    }
    writer.finish();
  }
  void flip(uint64_t offset) {
    std::fstream stream(file(), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(static_cast<std::streamoff>(offset));
    stream.put(byte);
  }
  std::string why_not_opened() const {
    const auto shard = Shard::open(file());
    return shard ? "opened" : shard.error().message();
  }
  TempDir dir_;
};

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    return e.message();
  }
  return "no error";
}

TEST_F(TokenShard, GivesBackAnyRangeAndDocumentStartsInBothWidths) {
  for (const uint32_t width : {2u, 4u}) {
    write(width, 100);
    const Shard shard = Shard::open(file()).value();
    EXPECT_EQ(shard.header().tokens, 5050u);
    EXPECT_EQ(shard.header().text_bytes, 1000u);
    EXPECT_EQ(shard.header().fingerprint, 77u);
    EXPECT_EQ(fs::file_size(file()), shard.header().file_bytes());
    std::vector<uint32_t> some(1000), expected(1000);
    std::iota(expected.begin(), expected.end(), 4050u);
    shard.read(4050, some);
    EXPECT_EQ(some, expected);
    std::vector<uint64_t> starts(3);
    shard.read_starts(97, starts);
    EXPECT_EQ(starts, (std::vector<uint64_t>{97 * 98 / 2, 98 * 99 / 2, 99 * 100 / 2}));
  }
}

TEST_F(TokenShard, KeepsWhatIsContextApartFromTheId) {
  for (const uint32_t width : {2u, 4u}) {
    write(width, 3, true);
    std::vector<uint32_t> tokens(6);
    Shard::open(file()).value().read(0, tokens);
    EXPECT_EQ(tokens, (std::vector<uint32_t>{0 | kNoTarget, 1 | kNoTarget, 2, 3 | kNoTarget, 4, 5}));
  }
}

TEST_F(TokenShard, IsAsWideAsTheVocabularyNeeds) {
  EXPECT_EQ(token_bytes_for(65536, false), 2u);
  EXPECT_EQ(token_bytes_for(65537, false), 4u);
  EXPECT_EQ(token_bytes_for(32768, true), 2u);
  EXPECT_EQ(token_bytes_for(32769, true), 4u);
}

TEST_F(TokenShard, EveryFlippedByteOfTheHeaderIsNoticed) {
  for (uint64_t offset = 0; offset < ShardHeader::kBytes; ++offset) {
    write(2, 10);
    flip(offset);
    EXPECT_THAT(why_not_opened(), testing::StartsWith(file().string())) << offset;
  }
}

TEST_F(TokenShard, ATruncatedEmptyOrForeignFileIsRefused) {
  write(2, 10);
  const auto whole = fs::file_size(file());
  fs::resize_file(file(), whole - 1);
  EXPECT_THAT(why_not_opened(), testing::HasSubstr(fmt::format("expected {} bytes as its header says, found {}", whole, whole - 1)));
  fs::resize_file(file(), 10);
  EXPECT_THAT(why_not_opened(), testing::HasSubstr("shorter than the header"));
  write_file_atomic(file(), std::string(100, 'x'));
  EXPECT_THAT(why_not_opened(), testing::HasSubstr("no token shard"));
  fs::remove(file());
  EXPECT_EQ(Shard::open(file()).error().code(), Code::kNotFound);
}

TEST_F(TokenShard, AFileThatIsNotFinishedIsNoShard) {
  {
    ShardWriter writer(file(), 2, false, 1);
    writer.add_document(std::vector<uint32_t>(3'000'000, 1), 1);
  }
  EXPECT_THAT(why_not_opened(), testing::HasSubstr("no token shard"));
}

TEST_F(TokenShard, VerifyFindsAFlippedByteBehindTheHeader) {
  write(2, 10);
  const auto size = fs::file_size(file());
  for (const uint64_t offset : {ShardHeader::kBytes, size - 1}) {
    uint64_t seen = 0;
    Shard::open(file()).value().verify([&](uint64_t bytes) { seen += bytes; });
    EXPECT_EQ(seen, size - ShardHeader::kBytes);
    flip(offset);
    EXPECT_THAT(error_of([&] { Shard::open(file()).value().verify([](uint64_t) {}); }), testing::HasSubstr("checksum"));
    flip(offset);
  }
}

TEST_F(TokenShard, ATokenBeyondTheLargestIsAnErrorWhereItIsRead) {
  write(2, 10);
  const Shard before = Shard::open(file()).value();
  flip(ShardHeader::kBytes + 2 * 20 + 1);  // 20 becomes 276
  const Shard shard = Shard::open(file()).value();
  std::vector<uint32_t> tokens(30);
  EXPECT_THAT(error_of([&] { shard.read(0, tokens); }), testing::HasSubstr("token 20 is 276, expected at most 54"));
  shard.read(21, tokens);
}

TEST_F(TokenShard, AFileThatShrinksVanishesOrIsReplacedIsAnErrorNamingIt) {
  std::vector<uint32_t> tokens(5);
  const auto read_after = [&](const std::function<void()>& change) {
    write(2, 10);
    const Shard shard = Shard::open(file()).value();
    shard.read(0, tokens);
    change();
    return error_of([&] { shard.read(0, tokens); });
  };
  const auto named = [&](const char* what) { return testing::AllOf(testing::StartsWith(file().string()), testing::HasSubstr(what)); };
  EXPECT_THAT(read_after([&] { fs::resize_file(file(), 70); }), named("70 bytes"));
  EXPECT_THAT(read_after([&] { fs::remove(file()); }), named("gone"));
  EXPECT_THAT(read_after([&] { write_file_atomic(file(), read_file(file(), 10000).value()); }), named("replaced"));
}


}  // namespace
}  // namespace penstock::data
