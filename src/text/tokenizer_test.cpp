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

TEST(Tokenizer, ParsesSpecialTokensOnlyWhenAsked) {
  const Tokenizer tokenizer = byte_tokenizer();
  EXPECT_THAT(tokenizer.encode("a<|end|>b", {.parse_special_tokens = true}), ElementsAre('a', 256, 'b'));
  EXPECT_THAT(tokenizer.encode("<|end|<|end|>", {.parse_special_tokens = true}), ElementsAre('<', '|', 'e', 'n', 'd', '|', 256));
  EXPECT_EQ(tokenizer.id_of("<|end|>"), 256);
  EXPECT_EQ(tokenizer.id_of("a"), 'a');
  EXPECT_EQ(tokenizer.id_of("ab"), -1);
  EXPECT_TRUE(tokenizer.is_special(256));
  EXPECT_FALSE(tokenizer.is_special('a'));
  EXPECT_FALSE(tokenizer.is_special(-1));
}

TEST(Tokenizer, DecodesToValidText) {
  const Tokenizer tokenizer = byte_tokenizer();
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("h\xC3\xA9 \xFF!")), "h\xC3\xA9 \xEF\xBF\xBD!");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'a', 256, 'b', 999, -5, 0xC3}), "ab\xEF\xBF\xBD");
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{'a', 256}, SpecialTokens::kAsText), "a<|end|>");
}

TEST(ByteAlphabet, IsGpt2s) {
  EXPECT_EQ(byte_symbol('A'), "A");
  EXPECT_EQ(byte_symbol(' '), "\xC4\xA0") << "U+0120";
  EXPECT_EQ(byte_symbol('\n'), "\xC4\x8A") << "U+010A";
  EXPECT_EQ(byte_symbol(0xAD), "\xC5\x83") << "U+0143, the last one";
  EXPECT_EQ(bytes_of_symbols("A\xC4\xA0"), "A ");
  EXPECT_EQ(bytes_of_symbols("\xC5\x84"), std::nullopt) << "U+0144";
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<unsigned char>(byte);
    EXPECT_EQ(bytes_of_symbols(byte_symbol(value)), std::string(1, static_cast<char>(value)));
  }
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
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) std::filesystem::remove(folder_.path() / name);
  const Tokenizer tokenizer = Tokenizer::load(folder_.path()).value();
  EXPECT_THAT(tokenizer.encode("A"), ElementsAre(255 - 'A'));
  EXPECT_EQ(tokenizer.bytes_of(255 - 'A'), "A");
  EXPECT_EQ(tokenizer.end_id(), -1);
}

TEST_F(TokenizerFiles, NameThePartThatIsNotSupported) {
  using Json = nlohmann::json;
  const std::pair<const char*, std::function<void(Json&)>> cases[] = {
      {"model: model type 'WordPiece'", [](Json& d) { d["model"]["type"] = "WordPiece"; }},
      {"model.end_of_word_suffix", [](Json& d) { d["model"]["end_of_word_suffix"] = "</w>"; }},
      {"model.dropout", [](Json& d) { d["model"]["dropout"] = 0.1; }},
      {"normalizer: normalizer 'Bert'", [](Json& d) { d["normalizer"]["type"] = "Bert"; }},
      {"pre_tokenizer: pre_tokenizer 'Unknown'", [](Json& d) { d["pre_tokenizer"]["type"] = "Unknown"; }},
      {"pre_tokenizer.pretokenizers[1]: a step after ByteLevel",
       [](Json& d) {
         const Json step = d["pre_tokenizer"];
         d["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {step, {{"type", "WhitespaceSplit"}}}}};
       }},
      {"pre_tokenizer.pattern.Regex: an intersection of classes (&&) is not supported, in the pattern [a&&b]",
       [](Json& d) {
         d["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "[a&&b]"}}}, {"behavior", "Isolated"}};
       }},
      {"decoder: ByteLevel in one of", [](Json& d) { d["decoder"] = {{"type", "Fuse"}}; }},
      {"decoder: a tokenizer without a decoder", [](Json& d) { d.erase("decoder"); }},
      {"post_processor: post_processor 'BertProcessing'", [](Json& d) { d["post_processor"] = {{"type", "BertProcessing"}}; }},
  };
  for (const auto& [part, change] : cases) {
    const Error e = refusal("tokenizer.json", change);
    EXPECT_EQ(e.code(), Code::kUnimplemented) << e.message();
    EXPECT_THAT(e.message(), HasSubstr(part));
    EXPECT_THAT(e.message(), HasSubstr("tokenizer.json: "));
  }
}

TEST_F(TokenizerFiles, AreRefusedWhenTheyContradictThemselves) {
  using Json = nlohmann::json;
  const std::pair<const char*, std::function<void(Json&)>> cases[] = {
      {"model.vocab: id 65 has two tokens", [](Json& d) { d["model"]["vocab"]["B"] = 65; }},
      {"added_tokens[0].id: id 65 has two tokens", [](Json& d) { d["added_tokens"][0]["id"] = 65; }},
      {"model.vocab: byte 0x41 has no token", [](Json& d) { d["model"]["vocab"].erase("A"); }},
      {"expected a token id from 0", [](Json& d) { d["model"]["vocab"]["A"] = -1; }},
      {"expected a token id from 0", [](Json& d) { d["model"]["vocab"]["A"] = 4000000000u; }},
      {"expected a token id from 0", [](Json& d) { d["model"]["vocab"]["A"] = ~uint64_t{0}; }},
      {"an integer as the id of \"A\"", [](Json& d) { d["model"]["vocab"]["A"] = 0.5; }},
      {"expected an object with a 'model'", [](Json& d) { d = Json::array(); }},
      {"model.vocab: expected an object, found 3", [](Json& d) { d["model"]["vocab"] = 3; }},
      {"model.unk_token: expected a token of model.vocab, found \"zz\"", [](Json& d) { d["model"]["unk_token"] = "zz"; }},
      {"model.merges: expected a list, found nothing", [](Json& d) { d["model"].erase("merges"); }},
      {"model.merges[0]: expected two tokens", [](Json& d) { d["model"]["merges"] = {"a b"}; }},
      {"model.merges[0]: expected two tokens with a space", [](Json& d) { d["model"]["merges"] = {"a b c"}; }},
      {"model.merges[1]: expected two tokens",
       [](Json& d) {
         d["model"]["vocab"]["ab"] = 257;
         d["model"]["merges"] = {{"a", "b"}, {"a", "b", "c"}};
       }},
      {"added_tokens[0]: expected an 'id' and a 'content'", [](Json& d) { d["added_tokens"] = {1, 2}; }},
      {"added_tokens[0].content: expected a text that is not empty", [](Json& d) { d["added_tokens"][0]["content"] = ""; }},
      {"post_processor: expected ids of tokens, and 900 is none",
       [](Json& d) {
         d["post_processor"] = {{"type", "TemplateProcessing"},
                                {"single", {{{"SpecialToken", {{"id", "x"}}}}, {{"Sequence", {{"id", "A"}}}}}},
                                {"special_tokens", {{"x", {{"ids", {900}}}}}}};
       }},
      {"pre_tokenizer.pattern.Regex: missing closing parenthesis",
       [](Json& d) {
         d["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
       }},
  };
  for (const auto& [part, change] : cases) {
    const Error e = refusal("tokenizer.json", change);
    EXPECT_EQ(e.code(), Code::kDataLoss) << e.message();
    EXPECT_THAT(e.message(), HasSubstr(part));
  }
  EXPECT_THAT(refusal("tokenizer_config.json", [](Json& d) { d["eos_token"] = "<eos>"; }).message(),
              HasSubstr("tokenizer_config.json: eos_token: expected a token of tokenizer.json, found \"<eos>\""));
}

TEST_F(TokenizerFiles, DecodeAddedTokensAsTheReferenceDoes) {
  nlohmann::json document = read("tokenizer.json");
  document["added_tokens"].push_back({{"id", 300}, {"content", "\xC3\xA9\xC4\xA0x"}, {"special", false}});        // e acute and U+0120, both symbols of bytes
  document["added_tokens"].push_back({{"id", 301}, {"content", "\xC3\xA9 \xEF\xBD\x9C"}, {"special", false}});  // a space is none
  write_file_atomic(folder_.path() / "tokenizer.json", document.dump());
  const Tokenizer tokenizer = Tokenizer::load(folder_.path()).value();
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{300}), "\xEF\xBF\xBD x") << "the byte 0xE9 is no UTF-8";
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{301}), "\xC3\xA9 \xEF\xBD\x9C");
  EXPECT_EQ(tokenizer.encode("\xC3\xA9\xC4\xA0x"), std::vector<int32_t>{300});
}

TEST_F(TokenizerFiles, AddATokenThatTheVocabularyHasUnderTheVocabularysId) {
  nlohmann::json document = read("tokenizer.json");
  document["added_tokens"].push_back({{"id", 300}, {"content", "A"}, {"special", false}});
  write_file_atomic(folder_.path() / "tokenizer.json", document.dump());
  const Tokenizer tokenizer = Tokenizer::load(folder_.path()).value();
  EXPECT_THAT(tokenizer.encode("xAx"), ElementsAre('x', 'A', 'x')) << "as Hugging Face's tokenizers has it";
  EXPECT_EQ(tokenizer.vocab_size(), 257);
}

TEST_F(TokenizerFiles, MayHaveIdsWithoutTokens) {
  nlohmann::json document = read("tokenizer.json");
  document["added_tokens"][0]["id"] = 300;
  write_file_atomic(folder_.path() / "tokenizer.json", document.dump());
  const Tokenizer tokenizer = Tokenizer::load(folder_.path()).value();
  EXPECT_EQ(tokenizer.vocab_size(), 301);
  EXPECT_EQ(tokenizer.end_id(), 300);
  EXPECT_EQ(tokenizer.bytes_of(256), "");
}

TEST_F(TokenizerFiles, ComeWithAllTokensThatEndATextWhichTheModelsFilesName) {
  const Tokenizer plain = Tokenizer::load(folder_.path()).value();
  EXPECT_THAT(plain.end_ids(), ElementsAre(256));
  write_file_atomic(folder_.path() / "config.json", R"({"eos_token_id": [7, 256]})");
  const Tokenizer listed = Tokenizer::load(folder_.path()).value();
  EXPECT_THAT(listed.end_ids(), ElementsAre(7, 256));
  write_file_atomic(folder_.path() / "generation_config.json", R"({"eos_token_id": 9})");
  const Tokenizer generation = Tokenizer::load(folder_.path()).value();
  EXPECT_THAT(generation.end_ids(), ElementsAre(9, 256)) << "it goes before config.json, and the tokenizer's own stays";
  for (const char* wrong : {R"({"eos_token_id": "a"})", R"({"eos_token_id": [1, -1]})", R"({"eos_token_id": [1, 1e99]})", R"({"eos_token_id": {}})"}) {
    write_file_atomic(folder_.path() / "generation_config.json", wrong);
    const auto refused = Tokenizer::load(folder_.path());
    ASSERT_FALSE(refused) << wrong;
    EXPECT_EQ(refused.error().code(), Code::kDataLoss);
    EXPECT_THAT(refused.error().message(), testing::AllOf(HasSubstr("generation_config.json: eos_token_id"), HasSubstr("the id of a token, or a list of them")));
  }
}

TEST_F(TokenizerFiles, AreListedForCopying) {
  write_file_atomic(folder_.path() / "model.safetensors", "x");
  std::vector<std::string> names;
  for (const auto& file : tokenizer_files(folder_.path())) names.push_back(file.filename());
  EXPECT_THAT(names, ElementsAre("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"));
  EXPECT_THROW((void)tokenizer_files(folder_.path() / "none"), Error);
}

TEST_F(TokenizerFiles, AreRefusedWhenAbsentOrBroken) {
  EXPECT_EQ(Tokenizer::load(folder_.path() / "none").error().code(), Code::kNotFound);
  write_file_atomic(folder_.path() / "tokenizer.json", "{\"model\": ");
  EXPECT_EQ(Tokenizer::load(folder_.path()).error().code(), Code::kDataLoss);
}

}  // namespace
}  // namespace penstock::text
