#include "plan/tensor_part.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::plan {
namespace {

using testing::HasSubstr;

constexpr TensorSizes kLlama{.vocab_size = 32000, .num_heads = 32, .num_kv_heads = 8, .intermediate_size = 11008};

std::string refusal(const TensorSizes& sizes, int ranks) {
  const auto part = tensor_part(sizes, 0, ranks);
  return part.ok() ? "accepted" : part.error().message();
}

TEST(TensorPart, OneRankHoldsAll) {
  EXPECT_EQ(tensor_part(kLlama, 0, 1).value(), (TensorPart{{0, 32}, {0, 8}, {0, 11008}, {0, 32000}}));
}

TEST(TensorPart, RanksTakeConsecutiveHeadsColumnsAndTokens) {
  EXPECT_EQ(tensor_part(kLlama, 1, 4).value(), (TensorPart{{8, 16}, {2, 4}, {2752, 5504}, {8000, 16000}}));
}

TEST(TensorPart, RanksBeyondTheKeyHeadsShareThem) {
  for (int rank = 0; rank < 32; ++rank) {
    const TensorPart part = tensor_part(kLlama, rank, 32).value();
    EXPECT_EQ(part.heads, (Range{rank, rank + 1}));
    EXPECT_EQ(part.kv_heads, (Range{rank / 4, rank / 4 + 1})) << "four query heads read one head of keys";
  }
}

// Every number of ranks that is accepted, for many small models: parts follow on one another and cover all, heads are even, and each rank has the keys that its
// queries read in whole groups.
TEST(TensorPart, PartsCoverTheModelForEveryNumberOfRanks) {
  int accepted = 0;
  for (int64_t kv_heads = 1; kv_heads <= 6; ++kv_heads) {
    for (int64_t heads = kv_heads; heads <= 24; heads += kv_heads) {
      for (const int64_t width : {24, 43, 96, 172, 256}) {
        const TensorSizes sizes{.vocab_size = 37, .num_heads = heads, .num_kv_heads = kv_heads, .intermediate_size = width};
        for (int ranks = 1; ranks <= heads; ++ranks) {
          if (!tensor_part(sizes, 0, ranks)) continue;
          ++accepted;
          TensorPart before;
          const auto offsets = vocab_offsets(sizes, ranks);
          for (int rank = 0; rank < ranks; ++rank) {
            const TensorPart part = tensor_part(sizes, rank, ranks).value();
            EXPECT_EQ(part.heads.begin, before.heads.end);
            EXPECT_EQ(part.intermediate.begin, before.intermediate.end);
            EXPECT_EQ(part.vocab, (Range{offsets[static_cast<size_t>(rank)], offsets[static_cast<size_t>(rank) + 1]}));
            EXPECT_EQ(part.heads.size(), heads / ranks);
            EXPECT_GT(part.intermediate.size(), 0);
            EXPECT_GT(part.vocab.size(), 0);
            ASSERT_EQ(part.heads.size() % part.kv_heads.size(), 0);
            for (int64_t head = part.heads.begin; head < part.heads.end; ++head) {
              const int64_t local = (head - part.heads.begin) / (part.heads.size() / part.kv_heads.size());
              EXPECT_EQ(part.kv_heads.begin + local, head / (heads / kv_heads));
            }
            before = part;
          }
          EXPECT_EQ(before.heads.end, heads);
          EXPECT_EQ(before.kv_heads.end, kv_heads);
          EXPECT_EQ(before.intermediate.end, width);
          EXPECT_EQ(offsets.back(), 37);
        }
      }
    }
  }
  EXPECT_GT(accepted, 500);
}

TEST(TensorPart, TheFeedForwardPartIsCutBetweenBlocksOf32WhereItHasThem) {
  const TensorSizes sizes{.vocab_size = 100, .num_heads = 9, .num_kv_heads = 3, .intermediate_size = 1536};
  EXPECT_EQ(tensor_part(sizes, 0, 3).value().intermediate, (Range{0, 512}));
  const TensorSizes uneven{.vocab_size = 100, .num_heads = 9, .num_kv_heads = 3, .intermediate_size = 160};
  EXPECT_EQ(tensor_part(uneven, 0, 3).value().intermediate, (Range{0, 32}));
  EXPECT_EQ(tensor_part(uneven, 2, 3).value().intermediate, (Range{96, 160}));
}

TEST(TensorPart, WhatDoesNotDivideIsNamedWithTheNumbersThatDo) {
  EXPECT_EQ(refusal(kLlama, 3), "3 ranks cannot share the layers of this model: 32 attention heads (num_attention_heads) are not a multiple of it; possible numbers of tensor "
                                "ranks: 1, 2, 4, 8, 16, 32");
  const TensorSizes grouped{.vocab_size = 100, .num_heads = 12, .num_kv_heads = 4, .intermediate_size = 64};
  EXPECT_THAT(refusal(grouped, 6), HasSubstr("4 heads of keys and values (num_key_value_heads) are neither a multiple nor a divisor of it; possible numbers of tensor ranks: 1, 2, 4, 12"));
  const TensorSizes narrow{.vocab_size = 100, .num_heads = 12, .num_kv_heads = 12, .intermediate_size = 5};
  EXPECT_THAT(refusal(narrow, 6), HasSubstr("the feed-forward part is only 5 wide (intermediate_size)"));
  const TensorSizes few{.vocab_size = 3, .num_heads = 4, .num_kv_heads = 4, .intermediate_size = 64};
  EXPECT_THAT(refusal(few, 4), HasSubstr("there are only 3 tokens (vocab_size)"));
}

}  // namespace
}  // namespace penstock::plan
