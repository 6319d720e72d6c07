#include "text/openai_tools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "text/grammar_states.h"

namespace penstock::text {
namespace {

using testing::HasSubstr;
using Choice = ToolUse::Choice;

constexpr const char* kTools = R"([{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"b":{"type":"integer"},"a":{"$ref":"#/$defs/word"}},"required":["b"],"$defs":{"word":{"enum":["x","$ref"]}}}}},{"type":"function","function":{"name":"now"}}])";

std::string chat_with(const std::string& members) { return R"({"model": "m", "messages": [{"role": "user", "content": "hi"}], )" + members + "}"; }
std::string with_tools(const std::string& choice) { return chat_with("\"tools\": " + std::string(kTools) + ", \"tool_choice\": " + choice); }

OpenAiCall chat(const std::string& body) {
  const OpenAiBody parsed = parse_chat_request(body);
  if (const auto* refusal = std::get_if<OpenAiRefusal>(&parsed)) {
    ADD_FAILURE() << refusal->message;
    return {};
  }
  return std::get<OpenAiCall>(parsed);
}

OpenAiRefusal refused(const std::string& body) {
  const OpenAiBody parsed = parse_chat_request(body);
  if (const auto* refusal = std::get_if<OpenAiRefusal>(&parsed)) return *refusal;
  return {"accepted", "", ""};
}

// The whole text is one that the constraint allows.
bool allows(const OpenAiCall& call, std::string_view text) {
  GrammarStates states(std::make_shared<const Grammar>(constraint_grammar(call.sampling.constraint).value()));
  auto place = states.start();
  for (const char byte : text) {
    if (place != GrammarStates::kNowhere) place = states.next(place, static_cast<uint8_t>(byte));
  }
  return place != GrammarStates::kNowhere && states.accepts(place);
}

TEST(OpenAiTools, KeepTheOrderOfTheirKeysAndAreLeftOutWhenTheyMustNotBeCalled) {
  EXPECT_EQ(chat(with_tools("null")).tools, kTools);
  EXPECT_EQ(chat(with_tools("null")).tool_use.choice, Choice::kAuto);
  EXPECT_EQ(chat(with_tools("\"auto\"")).tool_use.choice, Choice::kAuto);
  EXPECT_FALSE(chat(with_tools("\"auto\"")).sampling.constraint);
  EXPECT_EQ(chat(with_tools("\"none\"")).tools, "");
  EXPECT_EQ(chat(with_tools("\"none\"")).tool_use.choice, Choice::kNone);
  EXPECT_EQ(chat(chat_with(R"("tools": [], "tool_choice": "auto")")).tool_use.choice, Choice::kNone);
  EXPECT_TRUE(chat(with_tools("\"auto\"")).tool_use.parallel);
  EXPECT_FALSE(chat(with_tools("\"auto\", \"parallel_tool_calls\": false")).tool_use.parallel);
}

TEST(OpenAiTools, ACallThatIsDemandedIsAConstraint) {
  const OpenAiCall any = chat(with_tools("\"required\""));
  EXPECT_EQ(any.tools, kTools);
  EXPECT_EQ(any.tool_use.choice, Choice::kRequired);
  EXPECT_TRUE(allows(any, R"([{"name": "f", "parameters": {"b": 1, "a": "x"}}])")) << "references stay where they were";
  EXPECT_TRUE(allows(any, R"([{"name": "now", "parameters": {}}, {"name": "f", "parameters": {"b": 1, "a": "$ref"}}])"));
  for (const char* wrong : {"[]", R"([{"name": "g", "parameters": {}}])", R"([{"name": "f", "parameters": {}}])", R"([{"name": "f", "parameters": {"b": 1, "a": "y"}}])",
                            R"([{"name": "now", "parameters": {"b": 1}}])", "hello"}) {
    EXPECT_FALSE(allows(any, wrong)) << wrong;
  }
  const OpenAiCall odd = chat(chat_with(R"("tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["default", "a"],
      "properties": {"default": {"$ref": "#/properties/a"}, "a": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/properties/default"}}]}}}}}])"));
  EXPECT_TRUE(allows(odd, R"([{"name": "f", "parameters": {"default": [null], "a": [[[]]]}}])")) << "a member may be called as a keyword is, and refer to itself";
  EXPECT_FALSE(allows(odd, R"([{"name": "f", "parameters": {"default": 1, "a": null}}])"));
  const OpenAiCall one = chat(with_tools("\"required\", \"parallel_tool_calls\": false"));
  EXPECT_TRUE(allows(one, R"([{"name": "now", "parameters": {}}])"));
  EXPECT_FALSE(allows(one, R"([{"name": "now", "parameters": {}}, {"name": "now", "parameters": {}}])"));
}

TEST(OpenAiTools, ANamedCallIsItsArguments) {
  const OpenAiCall call = chat(with_tools(R"({"type": "function", "function": {"name": "f"}})"));
  EXPECT_EQ(call.tool_use.choice, Choice::kNamed);
  EXPECT_EQ(call.tool_use.function, "f");
  EXPECT_TRUE(allows(call, R"({"b": 3, "a": "x"})"));
  EXPECT_FALSE(allows(call, "{}"));
  EXPECT_TRUE(allows(chat(with_tools(R"({"type": "function", "function": {"name": "now"}})")), "{}"));
}

TEST(OpenAiTools, NamesWhatIsWrong) {
  const auto tool = [](const std::string& text) { return refused(chat_with("\"tools\": [" + text + "]")); };
  EXPECT_EQ(tool("7").message, "tools[0]: expected an object, found 7");
  EXPECT_EQ(tool(R"({"type": "web_search"})").message, "tools[0].type: expected function, found \"web_search\"");
  EXPECT_EQ(tool(R"({"type": "function"})").param, "tools[0].function");
  EXPECT_EQ(tool(R"({"type": "function", "function": {"name": ""}})").param, "tools[0].function.name");
  EXPECT_EQ(tool(R"({"type": "function", "function": {"name": "f", "parameters": []}})").param, "tools[0].function.parameters");
  EXPECT_EQ(refused(chat_with(R"("tools": {})")).param, "tools");
  std::string many = "[";
  for (int i = 0; i < 513; ++i) many += R"({"type": "function", "function": {"name": "f"}},)";
  many.back() = ']';
  EXPECT_THAT(refused(chat_with("\"tools\": " + many)).message, HasSubstr("tools: expected a list of at most 512 tools"));

  EXPECT_EQ(refused(with_tools("\"any\"")).message, "tool_choice: expected none, auto, required or {\"type\": \"function\", \"function\": {\"name\": ...}}, found \"any\"");
  EXPECT_EQ(refused(with_tools("7")).param, "tool_choice");
  EXPECT_EQ(refused(with_tools(R"({"type": "allowed_tools"})")).code, "unsupported_value");
  EXPECT_EQ(refused(with_tools(R"({"type": "function", "function": {"name": "g"}})")).message, "tool_choice: there is no tool 'g'");
  EXPECT_EQ(refused(with_tools(R"({"type": "function"})")).param, "tool_choice");
  EXPECT_EQ(refused(chat_with(R"("tool_choice": "required")")).message, "tool_choice: there are no tools; expected none or auto");
  EXPECT_EQ(refused(with_tools("\"required\", \"guided_regex\": \"a\"")).param, "tool_choice");
  EXPECT_EQ(refused(with_tools("\"auto\", \"guided_regex\": \"a\"")).message, "accepted");
  EXPECT_EQ(refused(chat_with(R"("parallel_tool_calls": 1)")).param, "parallel_tool_calls");
}

TEST(OpenAiTools, ParametersThatCannotBeFollowedAreRefusedOnlyWhereACallIsDemanded) {
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array", "uniqueItems": true}}}], "tool_choice": )";
  EXPECT_EQ(refused(chat_with(tools + "\"auto\"")).message, "accepted");
  for (const char* choice : {"\"required\"", R"({"type": "function", "function": {"name": "f"}})"}) {
    const OpenAiRefusal refusal = refused(chat_with(tools + choice));
    EXPECT_EQ(refusal.param, "tools[0].function.parameters");
    EXPECT_THAT(refusal.message, HasSubstr("uniqueItems"));
  }
  std::string large = R"("tools": [{"type": "function", "function": {"name": "f", "parameters": {"enum": [")" + std::string(70'000, 'x') + R"("]}}}], "tool_choice": "required")";
  EXPECT_THAT(refused(chat_with(large)).message, HasSubstr("65536 bytes"));
}

}  // namespace
}  // namespace penstock::text
