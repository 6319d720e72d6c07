#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/temp_dir.h"
#include "formats/gguf_config.h"

namespace penstock::text {
namespace {

using testing::HasSubstr;

const std::string kMessages = R"([{"role": "user", "content": "hi"}])";

Result<RenderedChat> render(const std::string& source, const std::string& messages = kMessages, const ChatOptions& options = {}) {
  const Result<ChatTemplate> chat = ChatTemplate::parse(source, {});
  return chat.ok() ? chat.value().render(messages, options) : chat.error();
}

std::string text_of(const std::string& source) {
  const Result<RenderedChat> rendered = render(source);
  return rendered.ok() ? rendered.value().text : "error: " + rendered.error().message();
}

Error refusal(const std::string& source) {
  const Result<RenderedChat> rendered = render(source);
  return rendered.ok() ? Error(Code::kInternal, "accepted: " + rendered.value().text) : rendered.error();
}

TEST(ChatTemplate, GivesWhatPythonsJinjaGives) {
  const auto document =
      nlohmann::ordered_json::parse(read_file(std::string(PENSTOCK_SOURCE_DIR) + "/src/text/testdata/jinja_cases.json", 1 << 20).value());
  const std::string variables = document.at("variables").dump();
  for (const auto& example : document.at("cases")) {
    const auto source = example[0].get<std::string>();
    const Result<RenderedChat> rendered = render(source, "[]", {.variables = variables});
    if (!rendered.ok()) ADD_FAILURE() << source << "\n" << rendered.error().message();
    else EXPECT_EQ(rendered.value().text, example[1].get<std::string>()) << source;
  }
  EXPECT_GT(document.at("cases").size(), 300u);
}

TEST(ChatTemplate, TakesMessagesAsStructuresToo) {
  const ChatTemplate chat = ChatTemplate::parse("{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                                                "{% if add_generation_prompt %}<assistant>{% endif %}",
                                                {{"bos_token", "<s>"}})
                                .value();
  EXPECT_EQ(chat.render({{"system", "a"}, {"user", "b"}}, {.add_generation_prompt = true}).value().text, "<s><system>a<user>b<assistant>");
}

TEST(ChatTemplate, SaysWhereTheAssistantSpeaks) {
  const std::string source = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}!{% endgeneration %}"
                             "{% else %}{{ m.content }}{% endif %}{% endfor %}";
  const RenderedChat chat = render(source, R"([{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}])").value();
  EXPECT_EQ(chat.text, "abcd!");
  EXPECT_THAT(chat.generated, testing::ElementsAre(std::pair<size_t, size_t>(2, 5)));
}

TEST(ChatTemplate, RaisesInItsOwnWords) {
  const Error e = refusal("x{{ raise_exception('roles must alternate') }}");
  EXPECT_EQ(e.message(), "roles must alternate");
  EXPECT_EQ(e.code(), Code::kInvalidArgument);
}

TEST(ChatTemplate, NamesTheConstructAndTheLineOfWhatItDoesNotKnow) {
  const std::pair<const char*, const char*> cases[] = {
      {"a\n{% include 'x' %}", "line 2: {% include %} is not supported"},
      {"\n\n{% block x %}{% endblock %}", "line 3: {% block %} is not supported"},
      {"{{ messages | groupby('role') }}", "line 1: the filter 'groupby' is not supported"},
      {"{{ 1 is escaped }}", "line 1: the test 'escaped' is not supported"},
      {"\n{{ 'a'.encode('x') }}", "line 2: the method encode() of a str is not supported"},
      {"{{ messages.append(1) }}", "the method append() of a list is not supported"},
      {"{% call f() %}{% endcall %}", "{% call %} is not supported"},
      {"{{ '%(a)s' % 3 }}", "formatting with %(name) is not supported"},
      {"{{ '%c' % 3 }}", "formatting with %c is not supported"},
      {"{{ '{:>8}'.format(3) }}", "format() with '{:>8}' is not supported"},
      {"{{ '{0.a}'.format(3) }}", "format() with '{0.a}' is not supported"},
      {"{{ (0 - 8) ** 0.5 }}", "complex numbers are not supported"},
      {"{% for x in messages recursive %}{% endfor %}", "a recursive loop is not supported"},
      {"{% for x in messages %}{% macro f() %}{% endmacro %}{% endfor %}", "a macro inside a block with variables of its own is not supported"},
      {"{% for x in [] %}{% else %}{% macro f() %}{% endmacro %}{% endfor %}", "a macro inside a block with variables of its own is not supported"},
      {"{% macro f() %}{{ kwargs.a }}{% endmacro %}{{ f(a=1) }}", "'kwargs' of macro 'f' is not supported"},
      {"{% macro f(a) %}{{ varargs | length }}{% endmacro %}{{ f(1, 2) }}", "'varargs' of macro 'f' is not supported"},
      {"{{ dict(**messages) }}", "**arguments are not supported"},
      {"{% for m in messages %}{{ loop.changed }}{% endfor %}", "loop.changed is not supported"},
      {"{{ {(1, 2): 3} }}", "a tuple as the key of a dict is not supported"},
  };
  for (const auto& [source, part] : cases) {
    const Error e = refusal(source);
    EXPECT_EQ(e.code(), Code::kUnimplemented) << source << ": " << e.message();
    EXPECT_THAT(e.message(), HasSubstr(part)) << source;
    EXPECT_THAT(e.message(), HasSubstr("chat template, line ")) << source;
  }
}

TEST(ChatTemplate, RefusesBrokenTemplatesWithTheLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"{% if x %}", "line 1: expected {% endif %}, found the end of the template"},
      {"{{ x", "line 1: a tag has no end ('}}')"},
      {"a\n{# x", "line 2: a comment has no end"},
      {"{{ }}", "expected an expression, found '}}'"},
      {"{% endif %}", "{% endif %} is not supported"},
      {"{{ 'abc }}", "a text has no end (')"},
      {"{{ (1 }}", "unexpected '}'"},
      {"{{ 1 | }}", "expected the name of a filter, found '}}'"},
      {"{{ 1 is }}", "expected the name of a test"},
      {"{% set = 3 %}", "expected the name of a variable, found '='"},
      {"{{ 1 2 }}", "expected '}}', found '2'"},
      {"{% break %}", "{% break %} outside a loop"},
      {"{{ 99999999999999999999 }}", "expected an integer of at most 64 bits"},
      {"{{ ? }}", "unexpected '?"},
      {"{% raw %}{{", "{% raw %} has no end ({% endraw %})"},
      {"{% filter %}{% endfilter %}", "expected the name of a filter"},
      {"{% with a %}{% endwith %}", "expected '='"},
      {"\xFF", "expected UTF-8"},
  };
  for (const auto& [source, part] : cases) EXPECT_THAT(refusal(source).message(), HasSubstr(part)) << source;
}

TEST(ChatTemplate, TellsValuesThatDoNotFit) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ nope.x }}", "'nope' is undefined"},
      {"\n{{ nope + 1 }}", "line 2: 'nope' is undefined"},
      {"{{ messages[0].nope.x }}", "'dict object' has no attribute 'nope'"},
      {"{{ messages[7].x }}", "list object has no element 7"},
      {"{{ 'a' + none }}", "can only concatenate str (not \"NoneType\") to str"},
      {"{{ 1 < 'a' }}", "'<' not supported between instances of 'int' and 'str'"},
      {"{{ [1, 'a', 2, 'b'] | sort }}", "'<' not supported between instances of"},
      {"{{ {1: 2, 'a': 4} | dictsort }}", "'<' not supported between instances of 'str' and 'int'"},
      {"{{ {1: 2, 'a': 4} | tojson(sort_keys=true) }}", "'<' not supported between instances of 'str' and 'int'"},
      {"{{ 1 / 0 }}", "division by zero"},
      {"{{ 9223372036854775807 + 1 }}", "an integer of more than 64 bits"},
      {"{% for a, b in [1] %}{% endfor %}", "expected 2 values, found int"},
      {"{% for a in 5 %}{% endfor %}", "'int' object is not iterable"},
      {"{% set x = 1 %}{% set x.y = 1 %}", "cannot assign attribute on non-namespace object"},
      {"{{ nope() }}", "'nope' is undefined"},
      {"{{ 'a'.items() }}", "'str object' has no attribute 'items'"},
      {"{{ messages.split('x') }}", "'list object' has no attribute 'split'"},
      {"{{ none.strip() }}", "'NoneType object' has no attribute 'strip'"},
      {"{{ 5() }}", "'int' object is not callable"},
      {"{{ nope | tojson }}", "tojson: 'nope' is undefined"},
      {"{{ 1 | tojson(separators=(',',)) }}", "tojson: expected two texts as separators"},
      {"{{ '%d' % 'a' }}", "%d format: a real number is required, not str"},
      {"{{ '%d' % ('nan' | float) }}", "%d format: an integer is required, not float"},
      {"{{ '%d' % ('inf' | float) }}", "%d format: an integer is required, not float"},
      {"{{ '%s %s' % 'a' }}", "not enough arguments for format string"},
      {"{{ '%s' % (1, 2) }}", "not all arguments converted"},
      {"{{ '%99999d' % 1 }}", "a width beyond 1000"},
      {"{{ '{}{}'.format(1) }}", "nothing is given for '{}'"},
      {"{{ '{'.format(1) }}", "expected '}' before end of string"},
      {"{{ 10 ** 40 }}", "an integer of more than 64 bits"},
      {"{{ 0.0 ** -1 }}", "cannot be raised to a negative power"},
      {"{% macro f(a) %}{{ a.kwargs }}{% endmacro %}{{ f(kwargs=1) }}", "macro 'f' takes no keyword argument 'kwargs'"},
      {"{% macro f(a) %}{% endmacro %}{{ f(b=1) }}", "macro 'f' takes no keyword argument 'b'"},
  };
  for (const auto& [source, part] : cases) {
    EXPECT_EQ(refusal(source).code(), Code::kInvalidArgument) << source;
    EXPECT_THAT(refusal(source).message(), HasSubstr(part)) << source;
  }
}

TEST(ChatTemplate, IsBounded) {
  const std::string many = "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}";
  EXPECT_THAT(refusal(many).message(), HasSubstr("takes more than 5000000 steps"));
  const std::string doubling = "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}";
  EXPECT_THAT(refusal(doubling).message(), HasSubstr("steps"));
  EXPECT_THAT(refusal("{% for a in range(20000) %}" + std::string(1000, 'x') + "{% endfor %}").message(), HasSubstr("the output is larger than 16777216 bytes"));
  EXPECT_THAT(refusal("{% set ns = namespace(l=[]) %}{% for a in range(1000) %}{% set ns.l = [ns.l] %}{% endfor %}").message(), HasSubstr("nested deeper"));
  const std::string laughs = "{% set ns = namespace(l=['lol']) %}{% for a in range(60) %}{% set ns.l = [ns.l, ns.l, ns.l] %}{% endfor %}{{ ns.l }}";
  EXPECT_THAT(refusal(laughs).message(), HasSubstr("holds more than"));
  EXPECT_THAT(refusal("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").message(), HasSubstr("macros call each other more than 16 deep"));
  EXPECT_THAT(refusal("{% set x = 'x' * 1000000 %}{{ ('{0}' * 100000).format(x) }}").message(), HasSubstr("takes more than 5000000 steps"));
  EXPECT_THAT(refusal("{{ range(1000000) }}").message(), HasSubstr("range() of more than 100000 numbers"));
  EXPECT_THAT(refusal("{{ dict([('a', 1)]) }}").message(), HasSubstr("dict() of anything but one dict and names is not supported"));
  EXPECT_THAT(refusal("{% set n = namespace() %}{% set n.n = n %}").message(), HasSubstr("a namespace inside a namespace"));
  const auto repeated = [](const std::string& part, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += part;
    return text;
  };
  EXPECT_THAT(refusal("{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}").message(), HasSubstr("nested deeper"));
  EXPECT_THAT(refusal("{{ " + repeated("not ", 100000) + "1 }}").message(), HasSubstr("nested deeper"));
  EXPECT_THAT(refusal("{{ " + repeated("-", 100000) + "1 }}").message(), HasSubstr("nested deeper"));
  EXPECT_THAT(refusal("{{ 1" + repeated(" + 1", 100000) + " }}").message(), HasSubstr("parts within each other"));
  EXPECT_THAT(refusal("{{ x" + repeated(".x", 100000) + " }}").message(), HasSubstr("parts within each other"));
  EXPECT_THAT(refusal(repeated("{% if true %}", 1000)).message(), HasSubstr("blocks nested deeper than 50"));
  EXPECT_THAT(refusal(repeated("x", (1 << 20) + 1)).message(), HasSubstr("at most 1048576 bytes"));
  EXPECT_EQ(text_of("{{ 1" + repeated(" + 1", 150) + " }}"), "151");
}

TEST(ChatTemplate, ChecksMessagesAndOptions) {
  EXPECT_THAT(render("x", "{}").error().message(), HasSubstr("messages: expected a list"));
  EXPECT_THAT(render("x", "[").error().message(), HasSubstr("messages: expected JSON"));
  EXPECT_THAT(render("x", kMessages, {.tools = "{}"}).error().message(), HasSubstr("tools: expected a list"));
  EXPECT_THAT(render("x", kMessages, {.variables = "[]"}).error().message(), HasSubstr("variables: expected an object"));
  EXPECT_THAT(render("x", kMessages, {.variables = R"({"messages": []})"}).error().message(), HasSubstr("'messages' is set by the conversation"));
  EXPECT_EQ(render("{{ documents[0] }}", kMessages, {.variables = R"({"documents": ["d"]})"}).value().text, "d");
  EXPECT_EQ(render("{{ tools[0] | tojson }}{{ x }}", kMessages, {.tools = R"([{"b": 1, "a": 2}])", .variables = R"({"x": 5})"}).value().text,
            R"({"b": 1, "a": 2}5)");
}

TEST(ChatTemplate, ComesFromAModelDirectory) {
  const TempDir folder;
  EXPECT_EQ(ChatTemplate::load(folder.path()).error().code(), Code::kNotFound);
  write_file_atomic(folder.path() / "tokenizer_config.json",
                    R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>", "pad_token": null, "chat_template": "{{ bos_token }}{{ eos_token }}{{ pad_token }}"})");
  EXPECT_EQ(ChatTemplate::load(folder.path()).value().render(kMessages).value().text, "<b><e>");
  write_file_atomic(folder.path() / "tokenizer_config.json",
                    R"({"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d{{ bos_token }}"}]})");
  write_file_atomic(folder.path() / "special_tokens_map.json", R"({"bos_token": "<m>"})");
  EXPECT_EQ(ChatTemplate::load(folder.path()).value().render(kMessages).value().text, "d<m>") << "a token that only the map names";
  write_file_atomic(folder.path() / "chat_template.jinja", "j{{");
  EXPECT_EQ(ChatTemplate::load(folder.path()).error().code(), Code::kDataLoss);
  EXPECT_THAT(ChatTemplate::load(folder.path()).error().message(), HasSubstr(folder.path().string()));
}

TEST(ChatTemplate, OfAModelMayBeAnotherWhereThereAreTools) {
  const TempDir folder;
  const auto expect_both = [&](const std::filesystem::path& model) {
    const ChatTemplate chat = ChatTemplate::load(model).value();
    EXPECT_EQ(chat.render(kMessages).value().text, "plain");
    EXPECT_EQ(chat.render(kMessages, {.tools = "[]"}).value().text, "plain") << "none is none";
    EXPECT_EQ(chat.render(kMessages, {.tools = R"([{"name": "f"}])"}).value().text, "tools: f");
    EXPECT_EQ(ChatTemplate::source(model).value(), "plain");
    EXPECT_EQ(ChatTemplate::source(model, /*for_tools=*/true).value(), "tools: {{ tools[0].name }}");
  };
  write_file_atomic(folder.path() / "tokenizer_config.json",
                    R"({"chat_template": [{"name": "tool_use", "template": "tools: {{ tools[0].name }}"}, {"name": "default", "template": "plain"}]})");
  expect_both(folder.path());
  write_file_atomic(folder.path() / "chat_template.jinja", "plain");
  EXPECT_EQ(ChatTemplate::source(folder.path(), true).value(), "plain") << "a file goes before the list";
  std::filesystem::create_directory(folder.path() / "additional_chat_templates");
  write_file_atomic(folder.path() / "additional_chat_templates" / "tool_use.jinja", "tools: {{ tools[0].name }}");
  expect_both(folder.path());
  const formats::GgufMetadata metadata = {{"general.architecture", formats::gguf_text("llama")},
                                          {"tokenizer.ggml.model", formats::gguf_text("llama")},
                                          {"tokenizer.ggml.tokens", formats::gguf_texts({"a"})},
                                          {"tokenizer.chat_template", formats::gguf_text("plain")},
                                          {"tokenizer.chat_template.tool_use", formats::gguf_text("tools: {{ tools[0].name }}")}};
  write_file_atomic(folder.path() / "t.gguf", formats::format_gguf_header(metadata, {}));
  expect_both(folder.path() / "t.gguf");
  EXPECT_EQ(ChatTemplate::parse("plain", {}, "{{").error().code(), Code::kDataLoss);
}

TEST(ChatTemplate, KnowsTheDate) { EXPECT_THAT(text_of("{{ strftime_now('%Y-%m-%d') }}"), testing::MatchesRegex("20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]")); }

}  // namespace
}  // namespace penstock::text
