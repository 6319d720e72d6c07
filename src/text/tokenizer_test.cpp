#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/temp_dir.h"
#include "text/byte_alphabet.h"

namespace penstock::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string all_bytes() {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  return bytes;
}

void expect_byte_tokenizer(const Tokenizer& tokenizer) {
  EXPECT_EQ(tokenizer.vocab_size(), 257);
  EXPECT_EQ(tokenizer.end_id(), 256);
  const std::vector<int32_t> ids = tokenizer.encode(all_bytes());
  ASSERT_EQ(ids.size(), 256u);
  for (int32_t byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(ids[static_cast<size_t>(byte)], byte);
    EXPECT_EQ(tokenizer.bytes_of(byte), std::string(1, static_cast<char>(byte)));
  }
}

TEST(Tokenizer, GivesEachByteItsValue) {
  const Tokenizer tokenizer = byte_tokenizer();
  expect_byte_tokenizer(tokenizer);
  EXPECT_THAT(tokenizer.encode("h\xC3\xA9"), ElementsAre('h', 0xC3, 0xA9));
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(Tokenizer, ShowsSpecialTokensOnlyWhenAsked) {
  const Tokenizer tokenizer = byte_tokenizer();
  EXPECT_EQ(tokenizer.bytes_of(256), "");
  EXPECT_EQ(tokenizer.bytes_of(256, SpecialTokens::kAsText), "<|end|>");
  EXPECT_EQ(tokenizer.bytes_of(257), "");
  EXPECT_EQ(tokenizer.bytes_of(-1), "");
  EXPECT_EQ(tokenizer.encode("<|end|>").size(), 7u) << "written in a text it is text, so a prompt cannot end the document";
}

TEST(ByteAlphabet, IsGpt2s) {
  EXPECT_EQ(byte_symbol('A'), "A");
  EXPECT_EQ(byte_symbol(' '), "\xC4\xA0") << "U+0120";
  EXPECT_EQ(byte_symbol('\n'), "\xC4\x8A") << "U+010A";
  EXPECT_EQ(byte_symbol(0xAD), "\xC5\x83") << "U+0143, the last one";
  EXPECT_EQ(byte_of_symbol("\xC4\xA0"), ' ');
  EXPECT_EQ(byte_of_symbol("AB"), std::nullopt);
}

class TokenizerFiles : public testing::Test {
 protected:
  TokenizerFiles() { write_tokenizer_files(folder_.path()); }

  nlohmann::json read(const char* name) { return nlohmann::json::parse(read_file(folder_.path() / name, 1 << 20).value()); }
  // Changes one of the files and says what becomes of it.
  Error refusal(const char* name, const std::function<void(nlohmann::json&)>& change) {
    write_tokenizer_files(folder_.path());
    nlohmann::json document = read(name);
    change(document);
    write_file_atomic(folder_.path() / name, document.dump());
    const Result<Tokenizer> tokenizer = Tokenizer::load(folder_.path());
    return tokenizer.ok() ? Error(Code::kInternal, "accepted") : tokenizer.error();
  }

  TempDir folder_;
};

TEST_F(TokenizerFiles, ReadBackAsTheByteTokenizer) { expect_byte_tokenizer(Tokenizer::load(folder_.path()).value()); }

TEST_F(TokenizerFiles, HaveTheFormOfHuggingFace) {
  const nlohmann::json tokenizer = read("tokenizer.json");
  EXPECT_EQ(tokenizer.at("model").at("type"), "BPE");
  EXPECT_EQ(tokenizer.at("model").at("vocab").size(), 256u);
  EXPECT_EQ(tokenizer.at("model").at("vocab").at("\xC4\xA0"), 32);
  EXPECT_EQ(tokenizer.at("model").at("merges"), nlohmann::json::array());
  EXPECT_EQ(tokenizer.at("pre_tokenizer").at("type"), "ByteLevel");
  EXPECT_EQ(tokenizer.at("pre_tokenizer").at("use_regex"), false);
  EXPECT_EQ(tokenizer.at("decoder").at("type"), "ByteLevel");
  ASSERT_EQ(tokenizer.at("added_tokens").size(), 1u);
  EXPECT_EQ(tokenizer.at("added_tokens")[0].at("id"), 256);
  EXPECT_EQ(tokenizer.at("added_tokens")[0].at("content"), "<|end|>");
  EXPECT_EQ(tokenizer.at("added_tokens")[0].at("special"), true);
  EXPECT_EQ(read("tokenizer_config.json").at("eos_token"), "<|end|>");
  EXPECT_EQ(read("tokenizer_config.json").at("added_tokens_decoder").at("256").at("special"), true);
  EXPECT_EQ(read("special_tokens_map.json").at("eos_token"), "<|end|>");
}

TEST_F(TokenizerFiles, MayNumberTheBytesInAnyOrderAndHaveNoConfig) {
  nlohmann::json document = read("tokenizer.json");
  for (int byte = 0; byte < 256; ++byte) document["model"]["vocab"][byte_symbol(static_cast<unsigned char>(byte))] = 255 - byte;
  write_file_atomic(folder_.path() / "tokenizer.json", document.dump());
  std::filesystem::remove(folder_.path() / "tokenizer_config.json");
  const Tokenizer tokenizer = Tokenizer::load(folder_.path()).value();
  EXPECT_THAT(tokenizer.encode("A"), ElementsAre(255 - 'A'));
  EXPECT_EQ(tokenizer.bytes_of(255 - 'A'), "A");
  EXPECT_EQ(tokenizer.end_id(), -1);
}

TEST_F(TokenizerFiles, NameThePartThatIsNotSupportedYet) {
  using Json = nlohmann::json;
  const std::pair<const char*, std::function<void(Json&)>> cases[] = {
      {"merges (1 of them)", [](Json& d) { d["model"]["merges"] = {"a b"}; }},
      {"model type 'Unigram'", [](Json& d) { d["model"]["type"] = "Unigram"; }},
      {"normalizer 'NFC'",
       [](Json& d) {
         d["normalizer"] = {{"type", "NFC"}};
       }},
      {"pre_tokenizer 'Sequence'",
       [](Json& d) {
         d["pre_tokenizer"] = {{"type", "Sequence"}};
       }},
      {"add_prefix_space", [](Json& d) { d["pre_tokenizer"]["add_prefix_space"] = true; }},
      {"decoder 'Metaspace'",
       [](Json& d) {
         d["decoder"] = {{"type", "Metaspace"}};
       }},
      {"post_processor 'TemplateProcessing'",
       [](Json& d) {
         d["post_processor"] = {{"type", "TemplateProcessing"}};
       }},
      {"byte_fallback", [](Json& d) { d["model"]["byte_fallback"] = true; }},
      {"vocabulary entry \"th\"", [](Json& d) { d["model"]["vocab"]["th"] = 257; }},
      {"added token \"<|end|>\" that is not special", [](Json& d) { d["added_tokens"][0]["special"] = false; }},
  };
  for (const auto& [part, change] : cases) {
    const Error e = refusal("tokenizer.json", change);
    EXPECT_EQ(e.code(), Code::kUnimplemented) << e.message();
    EXPECT_THAT(e.message(), HasSubstr(part));
    EXPECT_THAT(e.message(), HasSubstr("tokenizer.json"));
  }
}

TEST_F(TokenizerFiles, AreRefusedWhenTheyContradictThemselves) {
  using Json = nlohmann::json;
  const std::pair<const char*, std::function<void(Json&)>> cases[] = {
      {"id 65 has two tokens", [](Json& d) { d["model"]["vocab"]["B"] = 65; }},
      {"id 65 has no token", [](Json& d) { d["model"]["vocab"].erase("A"); }},
      {"byte 0x41 has no token",
       [](Json& d) {
         d["model"]["vocab"].erase("A");
         d["added_tokens"].push_back({{"id", 65}, {"content", "x"}, {"special", true}});
       }},
      {"expected a token id from 0", [](Json& d) { d["model"]["vocab"]["A"] = -1; }},
      {"expected a token id from 0", [](Json& d) { d["model"]["vocab"]["A"] = 4000000000u; }},
      {"expected an object with a 'model'", [](Json& d) { d = Json::array(); }},
      {"expected an object model.vocab", [](Json& d) { d["model"]["vocab"] = 3; }},
      {"expected an 'id' and a 'content'",
       [](Json& d) {
         d["added_tokens"] = {1, 2};
       }},
  };
  for (const auto& [part, change] : cases) {
    const Error e = refusal("tokenizer.json", change);
    EXPECT_EQ(e.code(), Code::kDataLoss) << e.message();
    EXPECT_THAT(e.message(), HasSubstr(part));
  }
  EXPECT_THAT(refusal("tokenizer_config.json", [](Json& d) { d["eos_token"] = "<eos>"; }).message(), HasSubstr("is no special token"));
}

TEST_F(TokenizerFiles, AreRefusedWhenAbsentOrBroken) {
  EXPECT_EQ(Tokenizer::load(folder_.path() / "none").error().code(), Code::kNotFound);
  write_file_atomic(folder_.path() / "tokenizer.json", "{\"model\": ");
  EXPECT_EQ(Tokenizer::load(folder_.path()).error().code(), Code::kDataLoss);
}

}  // namespace
}  // namespace penstock::text
