#include "data/prepare.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/temp_dir.h"
#include "data/token_stream.h"

namespace penstock::data {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Prepare : public testing::Test {
 protected:
  Prepare() {
    fs::create_directory(in());
    options_.inputs = {in().string()};
    options_.output = out();
    options_.threads = 2;
    options_.validation_fraction = 0;
  }
  fs::path in() const { return dir_.path() / "in"; }
  fs::path out() const { return dir_.path() / "out"; }
  void write(const std::string& name, const std::string& text) { std::ofstream(in() / name) << text; }
  std::string error() const {
    try {
      (void)prepare(options_);
    } catch (const Error& e) {
      EXPECT_FALSE(fs::exists(dir_.path() / "out.writing")) << "left behind";
      return e.message();
    }
    return "no error";
  }
  // The documents of a split, decoded.
  std::vector<std::string> documents(const SplitInfo& split) const {
    const ShardStream stream(open_shards(out(), read_token_folder(out()).value(), split));
    std::vector<uint32_t> tokens(static_cast<size_t>(stream.size()));
    stream.read(0, tokens);
    std::vector<std::string> texts;
    std::string text;
    for (const uint32_t token : tokens) {
      if (token < 256) {
        text += static_cast<char>(token);
      } else {
        texts.push_back(std::exchange(text, ""));
      }
    }
    EXPECT_EQ(text, "") << "the end token follows the last document";
    return texts;
  }
  std::map<std::string, std::string> bytes(const fs::path& folder) const {
    std::map<std::string, std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      if (entry.is_regular_file()) all[fs::relative(entry.path(), folder).string()] = read_file(entry.path(), 100 << 20).value();
    }
    return all;
  }

  TempDir dir_;
  PrepareOptions options_;
};

TEST_F(Prepare, TextIsCutAtSeparatorLinesAndJsonLinesAtLineEnds) {
  write("a.txt", "one\n%\ntwo\n100% sure\n%\n\n%\n \n%\nthree");
  write("b.jsonl", "{\"text\": \"four\\n%\\n\"}\n\n  {\"id\": 5, \"text\": \"five \\u00e9\"}\r\n");
  const auto result = prepare(options_);
  EXPECT_EQ(documents(result.folder.train), (std::vector<std::string>{"one", "two\n100% sure", "three", "four\n%\n", "five é"}));
  EXPECT_EQ(result.folder.train.text_bytes, 3u + 13 + 5 + 7 + 7);
  EXPECT_EQ(read_token_folder(out()).value().train.tokens, result.folder.train.tokens);
}

TEST_F(Prepare, GivesTheSameBytesForAnyNumberOfThreads) {
  std::string text;
  for (int i = 0; i < 40000; ++i) text += fmt::format("document {} of {}\n%\n", i, std::string(static_cast<size_t>(i % 50), 'x'));
  write("a", text);
  options_.validation_fraction = 0.1;
  options_.shard_bytes = 1 << 20;
  options_.threads = 1;
  (void)prepare(options_);
  const auto one = bytes(out());
  EXPECT_GE(one.size(), 5u) << "several shards";
  options_.overwrite = true;
  options_.threads = 7;
  (void)prepare(options_);
  EXPECT_EQ(bytes(out()), one);
}

TEST_F(Prepare, HoldsOutAnEvenShareOrTheFilesThatAreNamed) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += fmt::format("document {}\n%\n", i);
  write("a", text);
  options_.validation_fraction = 0.1;
  const auto share = prepare(options_);
  EXPECT_EQ(share.folder.train.documents, 90u);
  EXPECT_EQ(share.folder.validation.documents, 10u);
  EXPECT_EQ(documents(share.folder.validation).front(), "document 4");

  std::ofstream(dir_.path() / "held") << "held out";
  options_.validation_inputs = {(dir_.path() / "held").string()};
  options_.overwrite = true;
  const auto named = prepare(options_);
  EXPECT_EQ(named.folder.train.documents, 100u);
  EXPECT_EQ(documents(named.folder.validation), std::vector<std::string>{"held out"});
}

TEST_F(Prepare, ShardsAreClosedAtTheirSizeAndDocumentsStayWhole) {
  for (const char* name : {"a", "b", "c"}) write(name, std::string(700'000, *name));
  options_.shard_bytes = 2 << 20;
  const auto result = prepare(options_);
  EXPECT_THAT(documents(result.folder.train), testing::ElementsAre(testing::SizeIs(700'000), testing::SizeIs(700'000), testing::SizeIs(700'000)));
  ASSERT_EQ(result.folder.train.shards.size(), 2u);
  EXPECT_EQ(result.folder.train.shards[0].documents, 2u);
}

TEST_F(Prepare, ABadLineIsNamedAndTheFirstOfSeveral) {
  std::string lines;
  for (int i = 1; i <= 60000; ++i) lines += i == 50000 ? "{\"text\": 1}\n" : i == 50010 ? "nonsense\n" : "{\"text\": \"good enough a line\"}\n";
  write("a.jsonl", lines);
  options_.threads = 4;
  EXPECT_THAT(error(), HasSubstr("a.jsonl:50000: key 'text': expected a text, found 1"));
  const auto with = [&](const char* line) {
    write("a.jsonl", line);
    return error();
  };
  EXPECT_THAT(with("{\"text\": \"a\"}\n{\"text\": \"b"), HasSubstr("a.jsonl:2: expected JSON"));
  EXPECT_THAT(with("[1]"), HasSubstr("a.jsonl:1: expected a JSON object, found a list"));
  EXPECT_THAT(with("{\"body\": \"a\"}"), HasSubstr("a.jsonl:1: expected a key 'text'"));
  EXPECT_THAT(with("{\"text\": \"\xff\"}"), HasSubstr("a.jsonl:1"));
}

TEST_F(Prepare, InvalidUtf8IsNamedReplacedOrKept) {
  write("a", "\n\nfine\nlatin-1: \xe9t\xe9\n");
  EXPECT_THAT(error(), HasSubstr("in/a:4: expected UTF-8, found an invalid byte 0xe9"));
  options_.source.invalid_utf8 = InvalidUtf8::kReplace;
  EXPECT_EQ(documents(prepare(options_).folder.train).front(), "fine\nlatin-1: \xEF\xBF\xBDt\xEF\xBF\xBD");
  options_.source.invalid_utf8 = InvalidUtf8::kKeep;
  options_.overwrite = true;
  EXPECT_EQ(documents(prepare(options_).folder.train).front(), "fine\nlatin-1: \xe9t\xe9");
}

TEST_F(Prepare, DocumentsAndLinesHaveALimit) {
  options_.source.max_document_bytes = 1000;
  write("a", "first\n%\n" + std::string(2000, 'x'));
  EXPECT_THAT(error(), HasSubstr("in/a:3: a document of more than 1000 bytes"));
  std::string many_lines = "first\n%\n";
  for (int i = 0; i < 300; ++i) many_lines += "line\n";
  write("a", many_lines);
  EXPECT_THAT(error(), HasSubstr("in/a:3: a document of more than 1000 bytes"));
  fs::remove(in() / "a");
  write("b.jsonl", "{\"text\": \"a\"}\n{\"text\": \"" + std::string(3 << 20, 'x') + "\"}\n");
  EXPECT_THAT(error(), HasSubstr("in/b.jsonl:2: a document of more than 1000 bytes"));
}

TEST_F(Prepare, LeavesOutWhatIsNoTextAndWhatIsEmptyAndSaysHowMuch) {
  write("a", "text");
  fs::create_symlink("a", in() / "a.u8");
  std::ofstream(in() / "a.dat") << std::string("\0\1\2", 3);
  write("empty", "");
  write("b.jsonl", "{\"text\": \"\"}\n");
  const auto result = prepare(options_);
  EXPECT_EQ(documents(result.folder.train), std::vector<std::string>{"text"});
  EXPECT_EQ(result.files_left_out, 1);
  EXPECT_EQ(result.empty_documents, 1);
}

TEST_F(Prepare, SaysWhatIsMissing) {
  EXPECT_THAT(error(), HasSubstr("no text found in 0 files"));
  options_.inputs = {"/nowhere/at/all"};
  EXPECT_THAT(error(), HasSubstr("/nowhere/at/all does not exist"));
  options_.inputs = {"/dev/zero"};
  EXPECT_THAT(error(), HasSubstr("/dev/zero is a pipe or a device; expected a file or a folder"));
  options_.inputs = {in().string()};
  write("a", "text");
  options_.output = in() / "a" / "folder" / "deeper";
  EXPECT_THAT(error(), HasSubstr("cannot create " + (in() / "a" / "folder").string() + ": Not a directory")) << "a file is above it";
}

TEST_F(Prepare, TextToValidateWithIsNoneToTrainOn) {
  write("a", std::string("\0\1", 2));
  std::ofstream(dir_.path() / "held") << "held out";
  options_.validation_inputs = {(dir_.path() / "held").string()};
  EXPECT_THAT(error(), HasSubstr("no text found"));
}

TEST_F(Prepare, MakesTheFoldersAboveItsOutput) {
  write("a", "text");
  options_.output = dir_.path() / "no" / "such" / "folder";
  EXPECT_EQ(prepare(options_).files, 1);
  EXPECT_TRUE(is_token_folder(options_.output));
}

TEST_F(Prepare, ReplacesPreparedDataOnlyWhenAskedAndNothingElseEver) {
  write("a", "old");
  (void)prepare(options_);
  EXPECT_THAT(error(), HasSubstr("already there"));
  write("a", "new");
  options_.overwrite = true;
  EXPECT_EQ(documents(prepare(options_).folder.train), std::vector<std::string>{"new"});
  options_.output = in();
  EXPECT_THAT(error(), HasSubstr("no prepared data: not replaced"));
}

TEST_F(Prepare, AnotherWriterOfTheSameFolderIsRefusedAndAKilledOneSweptUp) {
  write("a", "text");
  const fs::path unfinished = dir_.path() / "out.writing";
  fs::create_directory(unfinished);
  std::ofstream(unfinished / "train-00000.tokens") << "torn";
  const int lock = ::open(unfinished.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_EQ(::flock(lock, LOCK_EX), 0);
  try {
    (void)prepare(options_);
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_THAT(e.message(), HasSubstr("another program is writing it"));
  }
  ::close(lock);
  EXPECT_EQ(documents(prepare(options_).folder.train), std::vector<std::string>{"text"});
}

TEST_F(Prepare, AStopLeavesNothing) {
  write("a", "text");
  options_.stopped = [] { return true; };
  EXPECT_THAT(error(), HasSubstr("stopped"));
  EXPECT_FALSE(fs::exists(out()));
}

TEST_F(Prepare, AFileThatCannotGrowIsAnErrorAndLeavesNothing) {
  write("a", std::string(4 << 20, 'x'));
  rlimit before{}, small{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  small = {1 << 20, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = error();
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, testing::AllOf(HasSubstr("cannot write"), HasSubstr("train-00000.tokens")));
  EXPECT_FALSE(fs::exists(out()));
}

TEST_F(Prepare, ADamagedManifestNamesFileAndKey) {
  write("a", "text");
  (void)prepare(options_);
  const fs::path file = out() / kTokenManifest;
  const std::string good = read_file(file, 1 << 20).value();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    write_file_atomic(file, text);
    try {
      const TokenFolder folder = read_token_folder(out()).value();
      (void)open_shards(out(), folder, folder.train);
    } catch (const Error& e) {
      return e.message();
    }
    return std::string("no error");
  };
  EXPECT_EQ(with("text", "text"), "no error");
  EXPECT_THAT(with("penstock token shards", "something"), HasSubstr("key 'format'"));
  EXPECT_THAT(with("\"version\": 1", "\"version\": 2"), HasSubstr("key 'version'"));
  EXPECT_THAT(with("\"vocab_size\"", "\"size\""), HasSubstr("expected a key 'vocab_size'"));
  EXPECT_THAT(with("train-00000.tokens", "../train"), HasSubstr("a file name"));
  EXPECT_THAT(with("train-00000.tokens", "train-00001.tokens"), HasSubstr("no such file"));
  EXPECT_THAT(with("\"tokens\": 5", "\"tokens\": 6"), HasSubstr("tokens"));
  EXPECT_THAT(with("\"vocab_size\": 257", "\"vocab_size\": 200"), HasSubstr("vocabulary of 200"));
  EXPECT_THAT(with("{", "["), HasSubstr("expected JSON"));
}

TEST_F(Prepare, VerifyReadsBothSplits) {
  write("a", "one\n%\ntwo\n%\nthree\n%\nfour");
  options_.validation_fraction = 0.5;
  (void)prepare(options_);
  double last = 0;
  verify_token_folder(out(), [&](double done) { last = done; });
  EXPECT_DOUBLE_EQ(last, 1);
  std::fstream stream(out() / "validation-00000.tokens", std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(64);
  stream.put('!');
  stream.close();
  EXPECT_THROW(verify_token_folder(out(), [](double) {}), Error);
}

TEST_F(Prepare, VerifyKnowsWhichTokenizerMadeTheTokens) {
  write("a", "text");
  (void)prepare(options_);
  EXPECT_NO_THROW(verify_token_folder(out(), [](double) {}));
  const fs::path file = out() / kTokenizerFolder / "tokenizer.json";
  auto tokenizer = nlohmann::json::parse(read_file(file, 1 << 20).value());
  std::swap(tokenizer["model"]["vocab"]["a"], tokenizer["model"]["vocab"]["b"]);
  write_file_atomic(file, tokenizer.dump());
  try {
    verify_token_folder(out(), [](double) {});
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_THAT(e.message(), HasSubstr("out/tokenizer: not the tokenizer that made the tokens"));
  }
}

TEST(TokenizerInfo, TellsTokenizersApart) {
  TempDir dir;
  const TokenizerInfo bytes = describe(text::byte_tokenizer());
  text::write_tokenizer_files(dir.path());
  EXPECT_EQ(describe(*open_tokenizer(dir.path())), bytes);
  std::string json = read_file(dir.path() / "tokenizer.json", 1 << 20).value();
  const auto swap = [&](const std::string& from, const std::string& to) { json.replace(json.find(from), from.size(), to); };
  swap("\"a\": 97", "\"a\": -1");
  swap("\"b\": 98", "\"b\": 97");
  swap("\"a\": -1", "\"a\": 98");
  write_file_atomic(dir.path() / "tokenizer.json", json);
  EXPECT_NE(describe(*open_tokenizer(dir.path())).fingerprint, bytes.fingerprint);
}

}  // namespace
}  // namespace penstock::data
