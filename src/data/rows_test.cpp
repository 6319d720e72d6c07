#include "data/rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace penstock::data {
namespace {

using testing::ElementsAre;

struct Row {
  explicit Row(int64_t length) : inputs(static_cast<size_t>(length)), targets(inputs), starts(inputs.size()) {}
  std::vector<int64_t> inputs, targets;
  std::vector<int32_t> starts;
};

Row read(const Rows& rows, int64_t index, int64_t shift = 0) {
  Row row(rows.length());
  const bool apart = rows.packing() != Packing::kStream;
  rows.read(index, shift, {row.inputs, row.targets, apart ? std::span<int32_t>(row.starts) : std::span<int32_t>()});
  return row;
}

// Documents of the given lengths, of tokens that count up from 100.
MemoryStream documents(const std::vector<size_t>& lengths) {
  MemoryStream stream;
  uint32_t next = 100;
  for (const size_t length : lengths) {
    EncodedDocument document;
    while (document.tokens.size() < length) document.tokens.push_back(next++);
    stream.add(document);
  }
  return stream;
}

TEST(Rows, AreWindowsOfTheStreamThatEndWhereItEnds) {
  const MemoryStream stream = documents({4, 6});
  const Rows rows(stream, 4, Packing::kStream);
  EXPECT_EQ(rows.full(), 2);
  EXPECT_EQ(rows.count(), 3);
  EXPECT_TRUE(rows.every_target_counts());
  EXPECT_THAT(read(rows, 1).inputs, ElementsAre(104, 105, 106, 107));
  EXPECT_THAT(read(rows, 1).targets, ElementsAre(105, 106, 107, 108));
  EXPECT_THAT(read(rows, 0, 3).inputs, ElementsAre(103, 104, 105, 106));
  EXPECT_THAT(read(rows, 2).targets, ElementsAre(109, -1, -1, -1));
  EXPECT_THAT(read(rows, 3).targets, ElementsAre(-1, -1, -1, -1));
}

TEST(Rows, OfDocumentsKeepThemApart) {
  const MemoryStream stream = documents({3, 1, 6});
  const Rows rows(stream, 5, Packing::kDocument);
  EXPECT_FALSE(rows.every_target_counts());
  EXPECT_THAT(read(rows, 0).targets, ElementsAre(101, 102, -1, -1, 105));
  EXPECT_THAT(read(rows, 0).starts, ElementsAre(0, 0, 0, 3, 4));
  EXPECT_THAT(read(rows, 1).inputs, ElementsAre(105, 106, 107, 108, 109)) << "the rest of the document that the row before began";
  EXPECT_THAT(read(rows, 1).starts, ElementsAre(0, 0, 0, 0, 0));
  EXPECT_THAT(read(rows, 1).targets, ElementsAre(106, 107, 108, 109, -1));
}

TEST(Rows, OfWholeDocumentsCutOnlyWhatIsLongerThanARow) {
  const MemoryStream stream = documents({2, 2, 3, 5, 12, 1});
  const Rows rows(stream, 5, Packing::kWhole);
  ASSERT_EQ(rows.count(), 6);
  EXPECT_THAT(read(rows, 0).targets, ElementsAre(101, -1, 103, -1, -1));
  EXPECT_THAT(read(rows, 0).starts, ElementsAre(0, 0, 2, 2, 4)) << "what is behind the end sees nothing";
  EXPECT_THAT(read(rows, 1).inputs, ElementsAre(104, 105, 106, 0, 0));
  EXPECT_THAT(read(rows, 2).targets, ElementsAre(108, 109, 110, 111, -1));
  EXPECT_THAT(read(rows, 3).targets, ElementsAre(113, 114, 115, 116, 117));
  EXPECT_THAT(read(rows, 5).inputs, ElementsAre(122, 123, 124, 0, 0)) << "two left of the long document, and the last one";
  EXPECT_THAT(read(rows, 5).starts, ElementsAre(0, 0, 2, 3, 3));
}

TEST(Rows, DoNotPredictContext) {
  MemoryStream stream;
  stream.add({{1 | kNoTarget, 2 | kNoTarget, 3, 4 | kNoTarget, 5}, 0});
  const Rows rows(stream, 5, Packing::kWhole);
  EXPECT_THAT(read(rows, 0).inputs, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(read(rows, 0).targets, ElementsAre(-1, 3, -1, 5, -1));
  EXPECT_FALSE(Rows(stream, 2, Packing::kStream).every_target_counts());
}

TEST(Rows, PredictEveryTokenOnceWhateverTheDocuments) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<size_t> lengths(1 + random() % 30);
    for (size_t& length : lengths) length = 1 + random() % 20;
    const MemoryStream stream = documents(lengths);
    std::vector<int64_t> firsts;
    stream.document_starts(0, stream.size(), firsts);
    for (const auto packing : {Packing::kStream, Packing::kDocument, Packing::kWhole}) {
      const Rows rows(stream, 1 + static_cast<int64_t>(random() % 12), packing);
      std::vector<int> predicted(static_cast<size_t>(stream.size()));
      for (int64_t r = 0; r < rows.count(); ++r) {
        const Row row = read(rows, r);
        for (size_t t = 0; t < row.targets.size(); ++t) {
          if (row.targets[t] < 0) continue;
          ASSERT_EQ(row.targets[t], row.inputs[t] + 1);
          ++predicted[static_cast<size_t>(row.targets[t] - 100)];
        }
      }
      std::vector<int> expected(predicted.size(), 1);
      expected[0] = 0;
      for (const int64_t first : firsts) expected[static_cast<size_t>(first)] = packing == Packing::kStream && first > 0 ? 1 : 0;
      ASSERT_EQ(predicted, expected);
    }
  }
}

TEST(Rows, OfNothingAreNone) {
  const MemoryStream stream;
  for (const auto packing : {Packing::kStream, Packing::kDocument, Packing::kWhole}) EXPECT_EQ(Rows(stream, 4, packing).count(), 0);
}

}  // namespace
}  // namespace penstock::data
