// Tokenizers and templates of GGUF files: the same ids as the Hugging Face files that they were made from.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"
#include "text/chat_template.h"
#include "text/gguf_pre_tokenizers.h"
#include "text/gguf_tokenizer.h"
#include "text/shared_cases_test.h"
#include "text/tokenizer.h"

namespace penstock::text {
namespace {

namespace fs = std::filesystem;
using formats::GgufMetadata;
using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

fs::path write_gguf(const fs::path& folder, const GgufMetadata& metadata) {
  write_file_atomic(folder / "t.gguf", formats::format_gguf_header(metadata, {}));
  return folder / "t.gguf";
}

void expect_cases(const Tokenizer& tokenizer, const Json& cases, bool parse_special) {
  for (const Json& example : cases) {
    const auto text = example.at("text").get<std::string>();
    const auto ids = example.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(text, {.parse_special_tokens = parse_special}), ids) << example.at("name");
    if (example.contains("ids_with_special")) {
      EXPECT_EQ(tokenizer.encode(text, {.add_special_tokens = true, .parse_special_tokens = parse_special}), example.at("ids_with_special").get<std::vector<int32_t>>())
          << example.at("name");
    }
    EXPECT_EQ(tokenizer.decode(ids, SpecialTokens::kAsText), example.at("decoded").get<std::string>()) << example.at("name");
  }
}

struct Source {
  const char* name;
  const char* folder;
  const char* cases;
  bool parse_special;
};

class GgufTokenizer : public testing::TestWithParam<Source> {};

// Hugging Face -> GGUF -> ids, and on to a Hugging Face directory again -> ids.
TEST_P(GgufTokenizer, GivesTheReferenceIdsAfterEachConversion) {
  const auto cases = shared_json(GetParam().cases);
  if (!cases) GTEST_SKIP() << "no test data in " << shared_folder() << " (set PENSTOCK_SHARED)";
  const fs::path folder = shared_folder() / GetParam().folder;
  const Tokenizer original = Tokenizer::load(folder).value();
  const GgufMetadata metadata = gguf_of_tokenizer(folder, original.vocab_size() + 3);
  const TempDir dir;
  const fs::path file = write_gguf(dir.path(), metadata);
  const Tokenizer tokenizer = Tokenizer::load(file).value();
  expect_cases(tokenizer, *cases, GetParam().parse_special);
  EXPECT_EQ(tokenizer.begin_id(), original.begin_id());
  EXPECT_EQ(tokenizer.end_id(), original.end_id());
  const TempDir back;
  for (const auto& [name, content] : tokenizer_files_of_gguf(formats::parse_gguf(MappedFile::open(file).value().bytes(), "t.gguf"))) write_file_atomic(back.path() / name, content);
  expect_cases(Tokenizer::load(back.path()).value(), *cases, GetParam().parse_special);
  const auto old_template = ChatTemplate::source(folder), new_template = ChatTemplate::source(back.path()), gguf_template = ChatTemplate::source(file);
  ASSERT_EQ(old_template.ok(), gguf_template.ok());
  ASSERT_EQ(old_template.ok(), new_template.ok());
  if (old_template.ok()) {
    EXPECT_EQ(old_template.value(), new_template.value());
  }
}

INSTANTIATE_TEST_SUITE_P(Text, GgufTokenizer,
                         testing::Values(Source{"gpt2", "data/tokenizers/gpt2", "data/tokenizers/gpt2/cases.json", true},
                                         Source{"qwen2_5", "data/tokenizers/qwen2_5", "data/tokenizers/qwen2_5/cases.json", true},
                                         Source{"mistral_nemo", "data/tokenizers/mistral_nemo", "data/tokenizers/mistral_nemo/cases.json", true},
                                         Source{"stories260K", "data/models/stories260K/hf", "data/models/stories260K/tokenizer_cases.json", true},
                                         Source{"spm_bpe", "data/tokenizers/spm_bpe", "data/tokenizers/spm_bpe/cases.json", false}),
                         [](const auto& info) { return info.param.name; });

TEST(GgufTokenizerOfAFile, GivesTheReferenceIds) {
  const auto cases = shared_json("data/models/stories260K/tokenizer_cases.json");
  if (!cases) GTEST_SKIP() << "no test data in " << shared_folder() << " (set PENSTOCK_SHARED)";
  const Tokenizer tokenizer = Tokenizer::load(shared_folder() / "data/models/stories260K/stories260K.gguf").value();
  expect_cases(tokenizer, *cases, true);
  EXPECT_EQ(tokenizer.begin_id(), 1);
  EXPECT_EQ(tokenizer.end_id(), 2);
  EXPECT_EQ(tokenizer.encode("a", {.add_special_tokens = true}).front(), 1) << "add_bos_token";
}

// Letters, the space symbol, and a word; a special token behind them.
GgufMetadata some_bytes() {
  formats::GgufValue::Texts tokens;
  formats::GgufValue::Integers types;
  for (int byte = 0x21; byte < 0x7F; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (const char* token : {"\xC4\xA0", "hi", "\xC4\xA0hi", "<|end|>"}) tokens.emplace_back(token);
  types.assign(tokens.size(), 1);
  types.back() = 3;
  const auto end = static_cast<int64_t>(tokens.size()) - 1;
  return {{"general.architecture", formats::gguf_text("llama")},
          {"tokenizer.ggml.model", formats::gguf_text("gpt2")},
          {"tokenizer.ggml.pre", formats::gguf_text("smollm")},
          {"tokenizer.ggml.tokens", formats::gguf_texts(tokens)},
          {"tokenizer.ggml.token_type", formats::gguf_i32s(types)},
          {"tokenizer.ggml.merges", formats::gguf_texts({"h i", "\xC4\xA0 hi"})},
          {"tokenizer.ggml.bos_token_id", formats::gguf_u32(end)},
          {"tokenizer.ggml.eos_token_id", formats::gguf_u32(end)},
          {"tokenizer.ggml.eot_token_id", formats::gguf_u32(95)},
          {"tokenizer.chat_template", formats::gguf_text("{% for m in messages %}{{ bos_token + m.content }}{% endfor %}")}};
}

TEST(GgufTokenizerOfBytes, CutsMergesAndKnowsItsSpecialTokens) {
  const TempDir dir;
  const fs::path file = write_gguf(dir.path(), some_bytes());
  const Tokenizer tokenizer = Tokenizer::load(file).value();
  const int32_t hi = 95, space_hi = 96, end = 97, digit_1 = '1' - 0x21;
  EXPECT_THAT(tokenizer.encode("hi hi11"), ElementsAre(hi, space_hi, digit_1, digit_1));
  EXPECT_THAT(tokenizer.encode("hi<|end|>", {.parse_special_tokens = true}), ElementsAre(hi, end));
  EXPECT_EQ(tokenizer.encode("<|end|>").size(), 7U) << "plain text";
  EXPECT_EQ(tokenizer.end_id(), end);
  EXPECT_THAT(tokenizer.end_ids(), ElementsAre(hi, end)) << "the end of a turn, too";
  EXPECT_EQ(tokenizer.encode("hi\x01", {}).size(), 1U) << "a byte without a token is dropped, as Hugging Face drops it";
  EXPECT_EQ(ChatTemplate::load(file).value().render(std::vector<ChatMessage>{{"user", "x"}}).value().text, "<|end|>x");
  EXPECT_EQ(Tokenizer::load(dir.path()).value().end_id(), end) << "a folder with one GGUF file";
}

TEST(GgufTokenizerOfBytes, AreCutAsTheirTableSays) {
  const auto pieces = [](const char* name, const std::string& text) {
    GgufMetadata metadata = some_bytes();
    auto& tokens = std::get<formats::GgufValue::Texts>(metadata[3].second.value);
    tokens.insert(tokens.end() - 1, {"\xC4\x8A", "\xC4\x8A\xC4\x8A", "11", "--", "\xC4\xA0-"});  // a line break and two, a number, signs
    std::get<formats::GgufValue::Integers>(metadata[4].second.value).insert(std::get<formats::GgufValue::Integers>(metadata[4].second.value).begin(), 5, 1);
    metadata[2].second = formats::gguf_text(name);
    metadata[5].second = formats::gguf_texts({"h i", "\xC4\xA0 hi", "\xC4\x8A \xC4\x8A", "1 1", "- -", "\xC4\xA0 -"});
    const TempDir dir;
    return Tokenizer::load(write_gguf(dir.path(), metadata)).value().encode(text).size();
  };
  EXPECT_EQ(pieces("llama-bpe", "11\n\n"), 2U);
  EXPECT_EQ(pieces("qwen2", "11\n\n"), 3U) << "digits by themselves";
  EXPECT_EQ(pieces("gpt-2", "11\n\n"), 2U);
  for (const char* name : {"deepseek-coder", "deepseek-llm"}) {
    EXPECT_EQ(pieces(name, "11\n\n"), 4U) << "line breaks by themselves, too";
    EXPECT_EQ(pieces(name, "hi hi"), 2U) << name;
    EXPECT_EQ(pieces(name, "hi--hi -"), 4U) << name;
  }
}

TEST(GgufPreTokenizers, AreFoundByWhatATokenizerJsonDoes) {
  for (const char* name : {"gpt-2", "smollm", "deepseek-coder", "deepseek-llm"}) {
    Json document = {{"pre_tokenizer", Json::parse(gguf_pre_tokenizer(name)->steps.dump())}, {"normalizer", nullptr}, {"model", Json::object()}};
    ASSERT_TRUE(gguf_pre_tokenizer_of(document)) << name;
    EXPECT_EQ(gguf_pre_tokenizer_of(document)->name, name);
    document["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};  // as DeepSeek's files have it
    ASSERT_TRUE(gguf_pre_tokenizer_of(document)) << name;
    EXPECT_EQ(gguf_pre_tokenizer_of(document)->name, name);
    document["normalizer"] = {{"type", "Lowercase"}};
    EXPECT_FALSE(gguf_pre_tokenizer_of(document)) << name;
  }
}

TEST(GgufTokenizerOfBytes, EndsAtSpecialTokensThatEndTurnsEverywhere) {
  GgufMetadata metadata = some_bytes();
  auto& tokens = std::get<formats::GgufValue::Texts>(metadata[3].second.value);
  tokens.insert(tokens.end(), {"<|eom_id|>", "<|im_end|>"});
  auto& types = std::get<formats::GgufValue::Integers>(metadata[4].second.value);
  types.insert(types.end(), {3, 1});  // the second one is plain text
  const TempDir dir;
  EXPECT_THAT(Tokenizer::load(write_gguf(dir.path(), metadata)).value().end_ids(), ElementsAre(95, 97, 98));
}

TEST(GgufTokenizerOfBytes, KeepsATemplateForToolsOnTheWayThereAndBack) {
  GgufMetadata metadata = some_bytes();
  metadata.emplace_back("tokenizer.chat_template.tool_use", formats::gguf_text("tools"));
  const std::string header = formats::format_gguf_header(metadata, {});
  const TempDir folder;
  for (const auto& [name, content] : tokenizer_files_of_gguf(formats::parse_gguf(std::as_bytes(std::span(header.data(), header.size())), "t.gguf"))) {
    write_file_atomic(folder.path() / name, content);
  }
  EXPECT_EQ(ChatTemplate::source(folder.path(), /*for_tools=*/true).value(), "tools");
  const GgufMetadata back = gguf_of_tokenizer(folder.path(), 98);
  const auto tool_template = std::find_if(back.begin(), back.end(), [](const auto& entry) { return entry.first == "tokenizer.chat_template.tool_use"; });
  ASSERT_NE(tool_template, back.end());
  EXPECT_EQ(std::get<std::string>(tool_template->second.value), "tools");
}

TEST(GgufTokenizerOfBytes, WritesATokenizerJsonInWhichHuggingFaceFindsTheSameIds) {
  const auto vocab_of = [](const GgufMetadata& metadata) {
    const std::string header = formats::format_gguf_header(metadata, {});
    const auto files = tokenizer_files_of_gguf(formats::parse_gguf(std::as_bytes(std::span(header.data(), header.size())), "t.gguf"));
    return Json::parse(files.at("tokenizer.json")).at("model").at("vocab");
  };
  GgufMetadata metadata = some_bytes();
  EXPECT_FALSE(vocab_of(metadata).contains("<|end|>")) << "behind all others: it gets the next number";
  auto& types = std::get<formats::GgufValue::Integers>(metadata[4].second.value);
  types[5] = 5;
  EXPECT_EQ(vocab_of(metadata).at("<|end|>"), 97) << "there is a hole: its number would be another one";
  types[5] = 3;
  EXPECT_EQ(vocab_of(metadata).at("&"), 5) << "among the others";
}

TEST(GgufTokenizerOfBytes, AMergeThatIsNotUtf8IsRefused) {
  GgufMetadata metadata = some_bytes();
  metadata[5].second = formats::gguf_texts({"h \xFF"});
  const TempDir dir;
  EXPECT_THAT(Tokenizer::load(write_gguf(dir.path(), metadata)).error().message(), HasSubstr("model.merges[0]: expected two tokens of model.vocab"));
  const std::string header = formats::format_gguf_header(metadata, {});
  try {
    (void)tokenizer_files_of_gguf(formats::parse_gguf(std::as_bytes(std::span(header.data(), header.size())), "t.gguf"));
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_THAT(e.message(), HasSubstr("t.gguf: tokenizer.ggml.merges: one of them is not UTF-8"));
  }
}

TEST(GgufTokenizerOfBytes, IsRefusedByNameWhereItIsNotUnderstood) {
  const auto complaint = [](const char* key, std::optional<formats::GgufValue> value) {
    GgufMetadata metadata = some_bytes();
    std::erase_if(metadata, [&](const auto& entry) { return entry.first == key; });
    if (value) metadata.emplace_back(key, *value);
    const TempDir dir;
    const auto loaded = Tokenizer::load(write_gguf(dir.path(), metadata));
    return loaded.ok() ? std::string() : loaded.error().message();
  };
  EXPECT_THAT(complaint("tokenizer.ggml.pre", formats::gguf_text("poro")), HasSubstr("tokenizer.ggml.pre: 'poro'; this version knows gpt-2, llama-bpe, qwen2, smollm, tekken, deepseek-coder, deepseek-llm"));
  for (const char* name : {"llama3", "llama-v3", "deepseek-r1-qwen", "megrez"}) EXPECT_EQ(complaint("tokenizer.ggml.pre", formats::gguf_text(name)), "") << name;
  EXPECT_THAT(complaint("tokenizer.ggml.pre", std::nullopt), HasSubstr("tokenizer.ggml.pre: expected how text is cut"));
  EXPECT_THAT(complaint("tokenizer.ggml.model", formats::gguf_text("bert")), HasSubstr("a tokenizer of kind 'bert'"));
  EXPECT_THAT(complaint("tokenizer.ggml.tokens", formats::gguf_texts({})), HasSubstr("tokenizer.ggml.tokens: expected 1 to"));
  EXPECT_THAT(complaint("tokenizer.ggml.tokens", formats::gguf_texts({"a"})), HasSubstr("1 entries, one for each token, not 98"));
  EXPECT_THAT(complaint("tokenizer.ggml.merges", formats::gguf_texts({"h zz"})), HasSubstr("model.merges[0]: expected two tokens of model.vocab"));
  EXPECT_THAT(complaint("tokenizer.ggml.eos_token_id", formats::gguf_u32(98)), HasSubstr("tokenizer.ggml.eos_token_id: expected an integer from 0 to 97, found 98"));
}

}  // namespace
}  // namespace penstock::text
