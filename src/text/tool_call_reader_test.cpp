#include "text/tool_call_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/shared_cases_test.h"

namespace penstock::text {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::MatchesRegex;

// What came of a text: its content, and each call as "NAME ARGUMENTS".
struct Read {
  std::string content;
  std::vector<std::string> calls;
  std::vector<std::string> ids;
  auto operator<=>(const Read&) const = default;
};

void add(Read& read, const ToolText& text) {
  read.content += text.content;
  for (const ToolCallPiece& piece : text.calls) {
    if (static_cast<size_t>(piece.index) == read.calls.size()) {
      EXPECT_NE(piece.name, "");
      read.calls.push_back(piece.name + " ");
      read.ids.push_back(piece.id);
    } else {
      EXPECT_EQ(piece.name + piece.id, "") << "a call is named once";
    }
    read.calls.at(static_cast<size_t>(piece.index)) += piece.arguments;
  }
}

Read read_in_pieces(const ToolReading& reading, std::string_view text, size_t piece) {
  ToolCallReader reader(reading);
  Read read;
  for (size_t at = 0; at < text.size(); at += piece) add(read, reader.feed(text.substr(at, piece)));
  add(read, reader.end());
  EXPECT_EQ(reader.called(), !read.calls.empty());
  return read;
}

// However the text is cut, the same comes of it.
Read read(const ToolReading& reading, std::string_view text) {
  const Read whole = read_in_pieces(reading, text, text.size() + 1);
  for (size_t piece = 1; piece < text.size(); ++piece) {
    const Read cut = read_in_pieces(reading, text, piece);
    EXPECT_EQ(cut.content, whole.content) << text << " in pieces of " << piece;
    EXPECT_EQ(cut.calls, whole.calls) << text << " in pieces of " << piece;
  }
  return whole;
}
Read hermes(std::string_view text) { return read({ToolFormat::kHermes}, text); }
Read llama(std::string_view text) { return read({ToolFormat::kLlama3Json}, text); }
Read mistral(std::string_view text) { return read({ToolFormat::kMistral}, text); }

TEST(ToolCallReader, FindsCallsOfHermesAndQwenAnywhere) {
  const Read one = hermes("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, {\"b\": \"}\\\"\"}]}}\n</tool_call>");
  EXPECT_EQ(one.content, "");
  EXPECT_THAT(one.calls, ElementsAre("f {\"a\": [1, {\"b\": \"}\\\"\"}]}"));
  const Read two = hermes("Let me see.\n<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>\n<tool_call>{\"arguments\": {\"x\": 1}, \"id\": 7, \"name\": \"g\"}</tool_call> Done. ");
  EXPECT_EQ(two.content, "Let me see. Done.");
  EXPECT_THAT(two.calls, ElementsAre("f {}", "g {\"x\": 1}"));
  EXPECT_THAT(two.ids, Each(MatchesRegex("call_[0-9a-f]{24}")));
  EXPECT_NE(two.ids[0], two.ids[1]);
}

TEST(ToolCallReader, ReadsArgumentsThatAreATextOrNull) {
  EXPECT_THAT(hermes(R"(<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>)").calls, ElementsAre(R"(f {"a": 1})"));
  EXPECT_THAT(hermes(R"(<tool_call>{"name": "f", "arguments": null, "strict": true}</tool_call>)").calls, ElementsAre("f {}"));
  EXPECT_THAT(hermes("<tool_call>{\"name\": \"\\u0066\xC3\xB6\", \"parameters\": {\"k\": \"\xC3\xB6\"}}</tool_call>").calls, ElementsAre("f\xC3\xB6 {\"k\": \"\xC3\xB6\"}"));
}

TEST(ToolCallReader, WhatIsNoCallIsContent) {
  for (const char* text : {"no call", " spaces around \n", "a < b <tool", "<tool_call", "<tool_call>", "<tool_call> x </tool_call>", "<tool_call>[1]</tool_call>",
                           R"(<tool_call>{"name": "f"}</tool_call>)", R"(<tool_call>{"name": 1, "arguments": {}}</tool_call>)", R"(<tool_call>{"name": "", "arguments": {}})",
                           R"(<tool_call>{"arguments": {"a": 1}}</tool_call>)", R"(<tool_call>{"name": "f", "arguments": [1]})", R"(<tool_call>{"name": "f", "arguments": 7})",
                           "<tool_call>{}", "<tool_call>{,}", "<tool_call>{\"name\" \"f\"}", "<tool_call>{\"name\": }", "<tool_call>{\"a\": 1 2}", "{\"name\": \"f\", \"arguments\": {}}",
                           "<tool_call><tool_call", "<<tool_call", "<tool_call>{\"name\": \"\\x\", \"arguments\": {}}"}) {
    const Read read = hermes(text);
    EXPECT_EQ(read.content, text);
    EXPECT_THAT(read.calls, IsEmpty()) << text;
  }
  EXPECT_THAT(hermes(R"(<tool_call>x<tool_call>{"name": "f", "arguments": {}}</tool_call>)").calls, ElementsAre("f {}")) << "the next one counts";
}

TEST(ToolCallReader, ACallThatIsCutOffKeepsWhatThereIs) {
  EXPECT_THAT(hermes(R"(<tool_call>{"name": "f", "arguments": {"a": "b)").calls, ElementsAre(R"(f {"a": "b)"));
  EXPECT_THAT(hermes(R"(<tool_call>{"name": "f", "arguments": {}}</tool)").calls, ElementsAre("f {}"));
  const Read broken = hermes(R"(<tool_call>{"name": "f", "arguments": {}; oh</tool_call>)");
  EXPECT_THAT(broken.calls, ElementsAre("f {}"));
  EXPECT_EQ(broken.content, "; oh</tool_call>");
  const Read unclosed = hermes(R"(<tool_call>{"name": "f", "arguments": {}}</tool <tool_call>{"name": "g", "arguments": {}}</tool_call>)");
  EXPECT_THAT(unclosed.calls, ElementsAre("f {}", "g {}"));
  EXPECT_EQ(unclosed.content, "</tool");
}

TEST(ToolCallReader, ArgumentsComeWhileTheyAreWritten) {
  ToolCallReader reader({ToolFormat::kHermes});
  EXPECT_EQ(reader.feed("Hm <tool").content, "Hm");
  EXPECT_THAT(reader.feed("_call>{\"name\": \"f\", \"arguments\": ").calls, IsEmpty());
  const ToolText begun = reader.feed("{\"a");
  ASSERT_EQ(begun.calls.size(), 1u);
  EXPECT_EQ(begun.calls[0].name, "f");
  EXPECT_EQ(begun.calls[0].arguments, "{\"a");
  const ToolText next = reader.feed("\": 1");
  ASSERT_EQ(next.calls.size(), 1u);
  EXPECT_EQ(next.calls[0].name, "");
  EXPECT_EQ(next.calls[0].arguments, "\": 1");
}

TEST(ToolCallReader, LlamasWholeTextIsOneCallOrSeveral) {
  EXPECT_THAT(llama(R"({"name": "f", "parameters": {"q": "x"}})").calls, ElementsAre(R"(f {"q": "x"})"));
  const Read two = llama("\n<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"a\": 1}}\n");
  EXPECT_EQ(two.content, "");
  EXPECT_THAT(two.calls, ElementsAre("f {}", "g {\"a\": 1}"));
  for (const char* text : {R"(Look: {"name": "f", "parameters": {}})", R"({"name": "Bob", "age": 7})", "<|python_tag", "<|{", " [1]", R"({"name": "f"})"}) {
    EXPECT_EQ(llama(text).content, text);
    EXPECT_THAT(llama(text).calls, IsEmpty()) << text;
  }
}

TEST(ToolCallReader, MistralsCallsAreAListBehindTheirMark) {
  const Read two = mistral("Sure: [TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": []}}, {\"name\": \"g\", \"arguments\": {}}] ");
  EXPECT_EQ(two.content, "Sure:");
  EXPECT_THAT(two.calls, ElementsAre("f {\"a\": []}", "g {}"));
  for (const char* text : {"[1, 2]", "[TOOL_CALLS]f{}", "[TOOL_CALLS] []", "[[TOOL_CALLS", "[TOOL_CALLS] [ {\"name\": \"f\"}]"}) {
    EXPECT_EQ(mistral(text).content, text);
    EXPECT_THAT(mistral(text).calls, IsEmpty()) << text;
  }
  const Read short_ids = read({.format = ToolFormat::kMistral, .short_ids = true}, R"([TOOL_CALLS][{"name": "f", "arguments": {}}])");
  EXPECT_THAT(short_ids.ids, ElementsAre(MatchesRegex("[0-9a-f]{9}")));
}

TEST(ToolCallReader, ADemandedCallIsTheWholeText) {
  const ToolReading list{ToolFormat::kCallList};
  EXPECT_THAT(read(list, R"([{"name": "f", "parameters": {"a": 1}}, {"name": "f", "parameters": {"a": 2}}])").calls, ElementsAre(R"(f {"a": 1})", R"(f {"a": 2})"));
  const ToolReading named{.format = ToolFormat::kArguments, .function = "f"};
  EXPECT_THAT(read(named, R"({"a": 1})").calls, ElementsAre(R"(f {"a": 1})"));
  EXPECT_THAT(read(named, "").calls, ElementsAre("f ")) << "cut off at once";
}

TEST(ToolCallReader, FurtherCallsThanAllowedAreLeftOut) {
  const ToolReading one{.format = ToolFormat::kHermes, .max_calls = 1};
  const Read first = read(one, R"(<tool_call>{"name": "f", "arguments": {}}</tool_call><tool_call>{"name": "g", "arguments": {"a": 1}}</tool_call>)");
  EXPECT_THAT(first.calls, ElementsAre("f {}"));
  EXPECT_EQ(first.content, "");
  std::string many;
  for (int i = 0; i < 200; ++i) many += R"(<tool_call>{"name": "f", "arguments": {}}</tool_call>)";
  EXPECT_EQ(read_in_pieces({ToolFormat::kHermes}, many, 1000).calls.size(), static_cast<size_t>(kMaxToolCalls));
}

TEST(ToolCallReader, HoldsBackABoundedPart) {
  ToolCallReader reader({ToolFormat::kHermes});
  const std::string text = "<tool_call>{\"x\": \"" + std::string(200'000, 'x');
  std::string content = reader.feed(text).content;
  EXPECT_GT(content.size(), 100'000u) << "it is let go as text once too much is held";
  content += reader.end().content;
  EXPECT_EQ(content, text);
  ToolCallReader list({ToolFormat::kMistral});
  EXPECT_EQ(list.feed("[TOOL_CALLS]" + std::string(100'000, ' ') + "x").content.size(), 100'013u);
  ToolCallReader name({ToolFormat::kHermes});
  EXPECT_GT(name.feed("<tool_call>{\"name\": \"" + std::string(2'000, 'x')).content.size(), 1'000u);
}

TEST(ToolFormat, IsTheOneThatTheTemplateShows) {
  EXPECT_EQ(tool_format_of("{{ '<tool_call>' }}"), ToolFormat::kHermes);
  EXPECT_EQ(tool_format_of("<tool_call>\n<function=x>"), ToolFormat::kNone);
  EXPECT_EQ(tool_format_of("{{ \"[TOOL_CALLS] [\" }}"), ToolFormat::kMistral);
  EXPECT_EQ(tool_format_of("[TOOL_CALLS]f[ARGS]{}"), ToolFormat::kNone);
  EXPECT_EQ(tool_format_of("Environment: ipython ... \"parameters\": dictionary"), ToolFormat::kLlama3Json);
  EXPECT_EQ(tool_format_of("{{ messages[0].content }}"), ToolFormat::kNone);
}

TEST(ToolFormat, IsFoundInRealTemplates) {
  const std::pair<const char*, ToolFormat> cases[] = {{"qwen2_5", ToolFormat::kHermes}, {"mistral_nemo", ToolFormat::kMistral}, {"smollm2", ToolFormat::kNone}};
  for (const auto& [name, format] : cases) {
    const auto file = shared_folder() / "data/chat_templates" / (std::string(name) + ".jinja");
    const auto source = read_file(file, 1 << 20);
    if (!source) GTEST_SKIP() << "no test data in " << file << " (set PENSTOCK_SHARED)";
    EXPECT_EQ(tool_format_of(source.value()), format) << name;
  }
}

}  // namespace
}  // namespace penstock::text
