#include "text/utf8_stream.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/file.h"
#include "text/byte_alphabet.h"

namespace penstock::text {
namespace {

constexpr const char* kBad = "\xEF\xBF\xBD";

// Each feed's text in brackets, the flush after them.
std::string pieces_of(const std::vector<std::string>& feeds) {
  Utf8Stream stream;
  std::string out;
  for (const std::string& bytes : feeds) out += fmt::format("[{}]", stream.feed(bytes));
  return out + stream.flush();
}

TEST(Utf8Stream, WaitsForWholeCharacters) {
  EXPECT_EQ(pieces_of({"a\xE2", "\x82", "\xAC z", "\xF0\x9F\x98", "\x80"}), "[a][][\xE2\x82\xAC z][][\xF0\x9F\x98\x80]");
}

TEST(Utf8Stream, ReplacesEachMaximalInvalidPartAsSoonAsItIsCertain) {
  EXPECT_EQ(pieces_of({"\x80", "\xE2\x82", "A"}), std::string("[") + kBad + "][][" + kBad + "A]");
  EXPECT_EQ(pieces_of({"\xE0\x80\x80"}), std::string("[") + kBad + kBad + kBad + "]") << "0xE0 cannot be followed by 0x80";
  EXPECT_EQ(pieces_of({"\xF0\x9F\x98\xC3\xA9"}), std::string("[") + kBad + "\xC3\xA9]");
  EXPECT_EQ(pieces_of({"\xED\xA0\x80"}), std::string("[") + kBad + kBad + kBad + "]") << "a surrogate";
}

TEST(Utf8Stream, FlushesAnUnfinishedCharacterOnceAndStartsAfresh) {
  Utf8Stream stream;
  EXPECT_EQ(stream.feed("\xE2\x82"), "");
  EXPECT_EQ(stream.flush(), kBad);
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.feed("\xAC"), kBad) << "nothing of the old character is left";
}

TEST(Utf8Stream, GivesTheSameTextHoweverTheBytesAreCut) {
  // All texts of three bytes out of one of each kind, then a character that must survive whatever came before.
  const std::string kinds = "A\x80\x9F\xA0\xBF\xC3\xE0\xE2\xED\xF0\xF4\xFF";
  for (const char a : kinds) {
    for (const char b : kinds) {
      for (const char c : kinds) {
        const std::string bytes = {a, b, c, 'Z'};
        Utf8Stream whole, single;
        const std::string expected = whole.feed(bytes) + whole.flush();
        std::string text;
        for (const char byte : bytes) text += single.feed(std::string(1, byte));
        ASSERT_EQ(text + single.flush(), expected);
        ASSERT_EQ(find_invalid_utf8(expected), std::string_view::npos);
        ASSERT_EQ(expected.back(), 'Z');
      }
    }
  }
}

// The folder of test data that is not part of the repository.
std::filesystem::path shared_folder() {
  const char* folder = std::getenv("PENSTOCK_SHARED");
  return folder != nullptr ? folder : std::filesystem::path(PENSTOCK_SOURCE_DIR) / "../shared";
}

// The bytes that a token of a byte-level vocabulary spells.
std::string bytes_of(std::string_view token) {
  std::string bytes;
  while (!token.empty()) {
    const size_t length = 1 + static_cast<size_t>(utf8_after(static_cast<unsigned char>(token.front())).count);
    bytes += static_cast<char>(byte_of_symbol(token.substr(0, length)).value());
    token.remove_prefix(length);
  }
  return bytes;
}

TEST(Utf8Stream, GivesTheReferencePiecesForTokensOfAByteLevelVocabulary) {
  const std::filesystem::path folder = shared_folder() / "data/tokenizers/gpt2";
  const Result<std::string> cases = read_file(folder / "incremental.json", 64 << 20);
  const Result<std::string> vocabulary = read_file(folder / "tokenizer.json", 64 << 20);
  if (!cases.ok() || !vocabulary.ok()) GTEST_SKIP() << "no test data in " << folder << " (set PENSTOCK_SHARED)";
  const nlohmann::json tokenizer = nlohmann::json::parse(vocabulary.value());
  std::map<int, std::string> spelled;
  for (const auto& [token, id] : tokenizer.at("model").at("vocab").items()) spelled[id.get<int>()] = token;
  std::map<int, std::string> special;
  for (const auto& token : tokenizer.at("added_tokens")) special[token.at("id").get<int>()] = token.at("content").get<std::string>();

  int count = 0;
  for (const auto& example : nlohmann::json::parse(cases.value())) {
    Utf8Stream stream;
    const bool skip = example.at("skip_special_tokens").get<bool>();
    for (size_t i = 0; i < example.at("ids").size(); ++i) {
      const int id = example.at("ids")[i].get<int>();
      const auto found = special.find(id);
      const std::string bytes = found == special.end() ? bytes_of(spelled.at(id)) : skip ? "" : found->second;
      EXPECT_EQ(stream.feed(bytes), example.at("pieces")[i].get<std::string>()) << example.at("name") << " token " << i;
    }
    EXPECT_EQ(stream.flush(), example.at("flush").get<std::string>()) << example.at("name");
    ++count;
  }
  EXPECT_GE(count, 20) << "the file holds fewer cases than it should";
}

}  // namespace
}  // namespace penstock::text
