// What a template may take of time and memory, whatever it says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/template_evaluator.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

using testing::HasSubstr;

const std::string kTooManySteps = "takes more than 20000 steps";

std::string repeated(const std::string& part, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += part;
  return text;
}

// What a template of 20,000 steps gives, or its error; `big` is a text of 64 KiB, `texts` a list of it, `keys` a dict with it as its key.
std::string outcome(const std::string& source) {
  const TemplateValue big = TemplateValue::text(std::string(1 << 16, 'x'));
  TemplateEvaluator::Variables variables = {{"big", big},
                                            {"same", TemplateValue::text(std::string(1 << 16, 'x'))},
                                            {"part", TemplateValue::text(std::string(2000, 'x') + "y")},
                                            {"texts", TemplateValue::list({big})},
                                            {"keys", TemplateValue::dict({{big, TemplateValue::integer(1)}})}};
  try {
    const std::vector<TemplateStatement> statements = parse_template(source);
    TemplateEvaluator evaluator(std::move(variables), {.steps = 20'000}, [](const std::string&) { return std::string("today"); });
    evaluator.run(statements);
    return evaluator.take_output();
  } catch (const Error& e) {
    return e.message();
  }
}

TEST(ChatTemplateLimits, StepsCountWhatIsRead) {
  const char* expressions[] = {
      "big | trim", "big | trim('y')", "'' | trim(big)", "big | length", "big | int", "big | float", "texts | string | length", "1 | tojson(separators=[big, big])",
      "big is lower", "big is upper", "[{}] | map(attribute=big) | list", "'y' is in big", "big is in texts", "big is eq same", "big is sameas same", "big is ge same",
      "big == same", "big != same ~ ''", "big <= same", "'y' in big", "'y' not in big", "big in texts", "big in keys", "texts == [same]", "[texts] <= [[same]]", "keys == {same: 1}",
      "texts.index(same)", "texts.count(same)", "keys.get(same)", "keys[same]", "keys[texts]", "big[-1]", "big[65000]", "dict(keys)", "namespace(keys)", "{big: 1}",
      "texts | min", "(texts + [same]) | max(case_sensitive=true)", "texts | sort", "(texts + texts) | sort(case_sensitive=true)", "texts | unique | list", "keys | dictsort",
      "[] | join(big)", "[1] | selectattr(big) | list", "[keys] | sum(attribute=big)", "'%.1s' % big", "big.startswith(('y', 'z'))", "''.startswith((big, 'z'))",
      "strftime_now(big)",
  };
  for (const std::string expression : expressions) {
    EXPECT_THAT(outcome("{% for i in range(100) %}{% set n = " + expression + " %}{% endfor %}"), HasSubstr(kTooManySteps)) << expression;
  }
  EXPECT_EQ(outcome("{% for i in range(100) %}{% set n = [texts|length, big[0], texts[0], big == 'x', texts == keys, 'a' in texts, big is string] %}{% endfor %}"), "")
      << "what is not read costs nothing";
}

TEST(ChatTemplateLimits, StepsCountHowLongASearchTakes) {
  for (const std::string method : {"find(part)", "rfind(part)", "count(part)", "split(part)", "rsplit(part)", "partition(part)", "rpartition(part)", "replace(part, '')"}) {
    EXPECT_THAT(outcome("{% set n = big." + method + " %}"), HasSubstr(kTooManySteps)) << method;
  }
  EXPECT_THAT(outcome("{{ part in big }}"), HasSubstr(kTooManySteps));
  EXPECT_EQ(outcome("{{ big.find('y') }}{{ 'y'.find(big) }}{{ part.split('</think>')|length }}"), "-1-11");
}

// The last item is an error, which comes too late.
TEST(ChatTemplateLimits, StepsCountWhatIsWrittenWhileItIsWritten) {
  const char* expressions[] = {
      "([{'a': {'b': 1}}] * 100 + [none]) | join(big, attribute='a.b')",
      "big.join([big] * 100)",
      "([1] * 100 + [range]) | tojson(separators=[big, ':'])",
      "[{'a': 1, 'b': 1, 'c': 1, 'd': 1, 'e': 1, 'f': 1, 'g': range}] | tojson(separators=[',', big])",
      "([big] * 100 + [range]) | tojson",
      "([[[[0]]]] * 1000 + [range]) | tojson(indent=16)",
  };
  for (const std::string expression : expressions) EXPECT_THAT(outcome("{{ " + expression + " }}"), HasSubstr(kTooManySteps)) << expression;
  EXPECT_EQ(outcome("{{ [1, [2]] | tojson(indent=-2294967296) }}"), "[\n1,\n[\n2\n]\n]") << "as Python, which indents by nothing";
}

TEST(ChatTemplateLimits, MissingValuesKeepNoLongNames) {
  EXPECT_EQ(outcome("{% set missing = {}[big] %}{{ [missing] | string | length }}{{ [missing][0] is undefined }}"), "11True");
  const std::string message = outcome("{{ {}[big].x }}");
  EXPECT_THAT(message, HasSubstr("'dict object' has no attribute 'xxx"));
  EXPECT_LT(message.size(), 1000u);
}

TEST(ChatTemplateLimits, NamesAndArgumentsAreFew) {
  EXPECT_THAT(outcome("{{ 'a' | map(" + repeated("'map', ", 100000) + "'upper') }}"), HasSubstr("more than 254 arguments are not supported"));
  EXPECT_THAT(outcome("{{ 'a' | map('map', 'upper') | list }}"), HasSubstr("map of map is not supported"));
  EXPECT_THAT(outcome("{{ f(" + repeated("a=1, ", 300) + ") }}"), HasSubstr("more than 254 arguments are not supported"));
  EXPECT_THAT(outcome("{% macro f(" + repeated("a, ", 300) + "a) %}{% endmacro %}"), HasSubstr("more than 255 parameters are not supported"));
  EXPECT_THAT(outcome("\n{{ " + repeated("x", 201) + " }}"), HasSubstr("line 2: a name of more than 200 characters is not supported"));
  EXPECT_EQ(outcome("{{ " + repeated("x", 200) + " }}{{ '{}'.format(" + repeated("1, ", 253) + "2) }}"), "1");
}

// These took the square of the length: minutes.
TEST(ChatTemplateLimits, LongTextsAreCutInOnePass) {
  EXPECT_EQ(split_at_space_last(repeated("a ", 500000), 400000).size(), 400001u);
  EXPECT_EQ(outcome("{{ (' a b  c ').rsplit(none, 1) }}"), "[' a b', 'c']");
  EXPECT_EQ(parse_template("{% raw %}" + repeated("{%", 500000) + "{%+ endraw %}").at(0).text.size(), 1000000u);
  EXPECT_THAT(outcome("{% raw %}{%"), HasSubstr("{% raw %} has no end"));
}

}  // namespace
}  // namespace penstock::text
