#include "data/token_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "base/temp_dir.h"
#include "data/permutation.h"

namespace penstock::data {
namespace {

// The same documents of rising lengths in memory and over several shards.
class Streams : public testing::Test {
 protected:
  Streams() {
    std::vector<Shard> shards;
    uint32_t next = 0;
    for (int s = 0; s < 4; ++s) {
      const auto path = dir_.path() / std::to_string(s);
      ShardWriter writer(path, 2, false, 1);
      for (uint32_t d = 0; d < 10; ++d) {
        EncodedDocument document{std::vector<uint32_t>(1 + d * 7 % 11), 3};
        for (uint32_t& token : document.tokens) token = next++;
        memory_.add(document);
        writer.add_document(document.tokens, document.text_bytes);
      }
      writer.finish();
      shards.push_back(Shard::open(path).value());
    }
    on_disk_ = std::make_unique<ShardStream>(std::move(shards));
  }
  TempDir dir_;
  MemoryStream memory_;
  std::unique_ptr<ShardStream> on_disk_;
};

TEST_F(Streams, AreAlikeInMemoryAndOnDisk) {
  EXPECT_EQ(on_disk_->size(), memory_.size());
  EXPECT_EQ(on_disk_->documents(), 40);
  EXPECT_EQ(on_disk_->text_bytes(), memory_.text_bytes());
  for (int64_t first = 0; first <= memory_.size(); ++first) {
    for (int64_t last = first; last <= memory_.size(); last += 13) {
      std::vector<uint32_t> tokens(static_cast<size_t>(last - first)), expected(tokens.size());
      std::iota(expected.begin(), expected.end(), static_cast<uint32_t>(first));
      on_disk_->read(first, tokens);
      ASSERT_EQ(tokens, expected);
      memory_.read(first, tokens);
      ASSERT_EQ(tokens, expected);
      std::vector<int64_t> a, b;
      memory_.document_starts(first, last, a);
      on_disk_->document_starts(first, last, b);
      ASSERT_EQ(a, b) << first << " to " << last;
    }
  }
  std::vector<int64_t> all;
  memory_.document_starts(0, memory_.size(), all);
  EXPECT_EQ(all.size(), 40u);
}

TEST(PermutationTest, IsABijectionOfAnySize) {
  for (uint64_t n = 1; n < 300; ++n) {
    const Permutation order(n, n * 31);
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < n; ++i) seen.insert(order(i));
    ASSERT_EQ(seen.size(), n);
    ASSERT_EQ(*seen.rbegin(), n - 1);
  }
}

TEST(PermutationTest, WorksBeyond32BitsAndDependsOnTheKey) {
  const uint64_t n = uint64_t{3} << 40;
  const Permutation a(n, 1), b(n, 2);
  int equal = 0;
  std::set<uint64_t> seen;
  for (uint64_t i = 0; i < 1000; ++i) {
    EXPECT_LT(a(i), n);
    seen.insert(a(i));
    equal += a(i) == b(i);
  }
  EXPECT_EQ(seen.size(), 1000u);
  EXPECT_EQ(equal, 0);
}

TEST(PermutationTest, NeighboursDoNotStayNeighbours) {
  const uint64_t n = 10000;
  const Permutation order(n, 5);
  int64_t close = 0;
  double sum = 0;
  for (uint64_t i = 0; i + 1 < n; ++i) {
    close += std::abs(static_cast<int64_t>(order(i)) - static_cast<int64_t>(order(i + 1))) < 100;
    sum += static_cast<double>(order(i)) * static_cast<double>(i);
  }
  EXPECT_LT(close, 300) << "expected about 200";
  const double mean = static_cast<double>(n - 1) / 2, covariance = sum / static_cast<double>(n) - mean * mean;
  EXPECT_LT(std::abs(covariance), 0.05 * static_cast<double>(n) * static_cast<double>(n) / 12);
}

}  // namespace
}  // namespace penstock::data
