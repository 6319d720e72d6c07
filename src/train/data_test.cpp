#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <set>

#include "base/temp_dir.h"
#include "train/data_loader.h"
#include "train/lr_schedule.h"
#include "train/text_corpus.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

TokenStream counting(int64_t size) {
  TokenStream stream;
  stream.ids.resize(static_cast<size_t>(size));
  std::iota(stream.ids.begin(), stream.ids.end(), 0);
  return stream;
}

std::vector<int64_t> starts(const std::vector<pipeline::Microbatch>& microbatches) {
  std::vector<int64_t> out;
  for (const auto& m : microbatches) {
    for (int64_t b = 0; b < m.inputs[0].size(0); ++b) out.push_back(m.inputs[0][b][0].item<int64_t>());
  }
  return out;
}

TEST(DataLoader, ReplicasTogetherSeeWhatOneProcessSees) {
  const TokenStream stream = counting(1000);
  DataLoader one(stream, {1, 4, 3, 8}, 5), two(stream, {2, 2, 3, 8}, 5);
  for (int step = 0; step < 20; ++step) {
    auto joined = starts(two.step(step, 0));
    const auto second = starts(two.step(step, 1));
    joined.insert(joined.end(), second.begin(), second.end());
    EXPECT_EQ(starts(one.step(step, 0)), joined) << "step " << step;
  }
}

TEST(DataLoader, IsAFunctionOfTheStepSoAnyStepCanBeAskedFirst) {
  const TokenStream stream = counting(500);
  DataLoader forward(stream, {1, 1, 2, 8}, 5), jump(stream, {1, 1, 2, 8}, 5);
  std::vector<int64_t> wanted;
  for (int step = 0; step <= 60; ++step) wanted = starts(forward.step(step, 0));
  EXPECT_EQ(starts(jump.step(60, 0)), wanted);
}

TEST(DataLoader, VisitsEachWindowOnceAnEpochInAnotherOrderEachTime) {
  const TokenStream stream = counting(8 * 11 + 1);  // 11 windows, 10 of which fit behind any offset
  DataLoader loader(stream, {1, 1, 1, 8}, 5);
  std::vector<int64_t> first, second;
  for (int s = 0; s < 10; ++s) first.push_back(starts(loader.step(s, 0))[0]);
  for (int s = 10; s < 20; ++s) second.push_back(starts(loader.step(s, 0))[0]);
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 10u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 10u);
  for (auto& s : first) s /= 8;
  for (auto& s : second) s /= 8;
  EXPECT_NE(first, second);
}

TEST(DataLoader, TargetsAreTheNextTokens) {
  const TokenStream stream = counting(100);
  DataLoader loader(stream, {1, 2, 2, 8}, 5);
  for (const auto& m : loader.step(3, 0)) EXPECT_TRUE((m.inputs[0] + 1).equal(m.targets[0]));
}

TEST(ValidationBatch, PredictsEveryTokenOnceOverAllReplicas) {
  const TokenStream stream = counting(71);
  const BatchShape shape{2, 1, 3, 8};
  std::vector<int64_t> seen;
  for (int64_t b = 0; b < validation_batches(stream, shape); ++b) {
    for (int r = 0; r < 2; ++r) {
      const auto batch = validation_batch(stream, shape, b, r);
      const auto targets = batch.targets[0].flatten();
      for (int64_t i = 0; i < targets.numel(); ++i) {
        if (targets[i].item<int64_t>() >= 0) seen.push_back(targets[i].item<int64_t>());
      }
    }
  }
  std::sort(seen.begin(), seen.end());
  std::vector<int64_t> all(70);
  std::iota(all.begin(), all.end(), 1);
  EXPECT_EQ(seen, all);
}

class Corpus : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text) { std::ofstream(dir_.path() / name) << text; }
  Result<TextCorpus> load(double fraction, const std::string& separator = "%") {
    config::TrainDataConfig data;
    data.paths = {dir_.path().string()};
    data.separator = separator;
    data.validation_fraction = fraction;
    return load_text_corpus(data, text::byte_tokenizer());
  }
  TempDir dir_;
};

TEST_F(Corpus, CutsAtSeparatorLinesAndEndsEachDocument) {
  write("a", "one\n%\ntwo\n100% sure\n%\n\n%\nthree");
  const auto corpus = load(0).value();
  EXPECT_EQ(corpus.train.documents, 3);
  EXPECT_EQ(corpus.train.bytes, static_cast<int64_t>(std::string("onetwo\n100% surethree").size()));
  EXPECT_EQ(corpus.train.ids[3], 256) << "the end token follows the first document";
}

TEST_F(Corpus, HoldsOutATenthOfTheDocuments) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "document " + std::to_string(i) + "\n%\n";
  write("a", text);
  const auto corpus = load(0.1).value();
  EXPECT_EQ(corpus.validation.documents, 10);
  EXPECT_EQ(corpus.train.documents, 90);
}

TEST_F(Corpus, ReadsEachFileOnceAndLeavesOutWhatIsNoText) {
  write("a", "text");
  fs::create_symlink("a", dir_.path() / "a.u8");
  std::ofstream(dir_.path() / "a.dat") << std::string("\0\1\2", 3);
  EXPECT_EQ(load(0).value().train.documents, 1);
}

TEST_F(Corpus, SaysWhatIsMissing) {
  EXPECT_NE(load(0).error().message().find("no text found"), std::string::npos);
  config::TrainDataConfig data;
  data.paths = {"/nowhere/at/all"};
  EXPECT_EQ(load_text_corpus(data, text::byte_tokenizer()).error().code(), Code::kNotFound);
}

TEST(LearningRate, WarmsUpThenFollowsACosineToItsFloor) {
  config::OptimizerConfig o;
  o.lr = 1;
  o.min_lr_ratio = 0.1;
  o.warmup_steps = 3;
  EXPECT_DOUBLE_EQ(learning_rate(o, 0, 0), 0.25);
  EXPECT_DOUBLE_EQ(learning_rate(o, 3, 0), 1);
  EXPECT_NEAR(learning_rate(o, 50, 0.5), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(o, 100, 1), 0.1, 1e-12);
}

TEST(LearningRate, FallsAsTheScheduleSays) {
  config::OptimizerConfig o;
  o.lr = 2;
  o.min_lr_ratio = 0;
  using Schedule = config::LearningRateSchedule;
  o.schedule = Schedule::kLinear;
  EXPECT_DOUBLE_EQ(learning_rate(o, 9, 0.25), 1.5);
  o.schedule = Schedule::kConstant;
  EXPECT_DOUBLE_EQ(learning_rate(o, 9, 0.99), 2);
  o.schedule = Schedule::kWarmupStableDecay;
  o.decay_fraction = 0.2;
  EXPECT_DOUBLE_EQ(learning_rate(o, 9, 0.8), 2);
  EXPECT_NEAR(learning_rate(o, 9, 0.9), 1, 1e-12);
  EXPECT_NEAR(learning_rate(o, 9, 1), 0, 1e-12);
}

TEST(RunProgress, FollowsWhicheverLimitIsNearer) {
  EXPECT_DOUBLE_EQ(run_progress(5, 10, 0, 0), 0.5);
  EXPECT_DOUBLE_EQ(run_progress(5, 10, 9, 10), 0.9);
  EXPECT_DOUBLE_EQ(run_progress(5, 0, 20, 10), 1);
}

}  // namespace
}  // namespace penstock::train
