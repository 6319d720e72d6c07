#include "data/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.h"
#include "base/temp_dir.h"
#include "data/prepare.h"

namespace penstock::data {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CorpusTest : public testing::Test {
 protected:
  CorpusTest() {
    fs::create_directory(in());
    data_.paths = {in().string()};
    data_.validation_fraction = 0;
  }
  fs::path in() const { return dir_.path() / "in"; }
  void write(const std::string& name, const std::string& text) const { std::ofstream(in() / name) << text; }
  std::string error() const {
    const auto corpus = open_corpus(data_);
    return corpus ? "no error" : corpus.error().message();
  }
  fs::path prepared(double validation_fraction, const fs::path& tokenizer = {}) const {
    PrepareOptions options;
    options.inputs = {in().string()};
    options.output = dir_.path() / "prepared";
    options.overwrite = true;
    options.validation_fraction = validation_fraction;
    options.shard_bytes = 512;
    options.tokenizer = tokenizer;
    (void)prepare(options);
    return options.output;
  }
  static std::vector<uint32_t> tokens(const TokenStream& stream) {
    std::vector<uint32_t> all(static_cast<size_t>(stream.size()));
    stream.read(0, all);
    return all;
  }
  // The byte tokenizer with two letters exchanged.
  fs::path other_tokenizer() const {
    const fs::path folder = dir_.path() / "model";
    fs::create_directories(folder);
    text::write_tokenizer_files(folder);
    std::string json = read_file(folder / "tokenizer.json", 1 << 20).value();
    json.replace(json.find("\"a\": 97"), 7, "\"a\": 98");
    json.replace(json.find("\"b\": 98"), 7, "\"b\": 97");
    write_file_atomic(folder / "tokenizer.json", json);
    return folder;
  }

  TempDir dir_;
  config::TrainDataConfig data_;
};

TEST_F(CorpusTest, CutsTextAtSeparatorLinesAndEndsEachDocument) {
  write("a", "one\n%\ntwo\n100% sure\n%\n\n%\nthree");
  const auto corpus = open_corpus(data_).value();
  EXPECT_EQ(corpus.train->documents(), 3);
  EXPECT_EQ(corpus.train->text_bytes(), static_cast<int64_t>(std::string("onetwo\n100% surethree").size()));
  EXPECT_EQ(tokens(*corpus.train)[3], 256u) << "the end token follows the first document";
}

TEST_F(CorpusTest, PreparedDataAndTextGiveTheSameTokens) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += fmt::format("document {}\n%\n", i * i);
  write("a", text);
  write("b.jsonl", "{\"text\": \"last\"}");
  data_.validation_fraction = 0.1;
  const auto read = open_corpus(data_).value();
  data_.paths = {prepared(0.1).string()};
  const auto opened = open_corpus(data_).value();
  EXPECT_EQ(tokens(*opened.train), tokens(*read.train));
  EXPECT_EQ(tokens(*opened.validation), tokens(*read.validation));
  EXPECT_EQ(opened.train->text_bytes(), read.train->text_bytes());
  EXPECT_EQ(opened.validation->documents(), 20);
}

TEST_F(CorpusTest, HoldsOutTheFilesThatAreNamed) {
  write("a", "one\n%\ntwo");
  std::ofstream(dir_.path() / "held") << "three\n%\nfour";
  data_.validation_fraction = 0.5;
  data_.validation_paths = {(dir_.path() / "held").string()};
  const auto corpus = open_corpus(data_).value();
  EXPECT_EQ(corpus.train->documents(), 2);
  EXPECT_EQ(corpus.validation->documents(), 2);
}

TEST_F(CorpusTest, AnotherTokenizerThanTheModelsIsRefused) {
  write("a", "abc");
  data_.paths = {prepared(0).string()};
  EXPECT_TRUE(open_corpus(data_).ok());
  const fs::path model = other_tokenizer();
  const auto refused = open_corpus(data_, model);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message(), testing::AllOf(HasSubstr("another tokenizer"), HasSubstr(fmt::format("--tokenizer {}", model.string()))));
  (void)prepared(0, model);
  EXPECT_EQ(tokens(*open_corpus(data_, model).value().train), (std::vector<uint32_t>{98, 97, 99, 256}));
  data_.paths = {in().string()};
  EXPECT_EQ(tokens(*open_corpus(data_, model).value().train), (std::vector<uint32_t>{98, 97, 99, 256})) << "text, by the model's tokenizer";
}

TEST_F(CorpusTest, SaysWhatIsMissing) {
  EXPECT_THAT(error(), HasSubstr("data.path: no text found"));
  data_.paths = {"/nowhere/at/all"};
  EXPECT_EQ(open_corpus(data_).error().code(), Code::kNotFound);
  write("a", "text");
  data_.paths = {prepared(0).string(), in().string()};
  EXPECT_THAT(error(), HasSubstr("must be the only path"));
  data_.paths = {prepared(0).string()};
  fs::remove(dir_.path() / "prepared" / "train-00000.tokens");
  EXPECT_THAT(error(), HasSubstr("train-00000.tokens: no such file"));
}

}  // namespace
}  // namespace penstock::data
