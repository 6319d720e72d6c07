#include "config/fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/yaml_reader.h"

namespace penstock::config {
namespace {

using testing::ElementsAre;

enum class Color { kRed, kGreen };

struct Sample {
  int count = 1;
  int64_t seed = 0;
  double rate = 0.5;
  bool on = false;
  std::string name;
  std::vector<std::string> paths;
  std::vector<int> ids;
  seconds timeout{5};
  Color color = Color::kRed;
};

std::vector<Field> fields_of(Sample& s) {
  return {
      integer_field("count", s.count, {1, 10}, "how many"),
      integer_field("seed", s.seed, {0}, ""),
      boolean_field("on", s.on, ""),
      text_field("name", s.name, "", 20),
      choice_field<Color>("color", s.color, {{"red", Color::kRed}, {"green", Color::kGreen}}, ""),
      real_field("group.rate", s.rate, {.min = 0, .max = 1, .min_excluded = true}, ""),
      text_list_field("group.paths", s.paths, "", 20),
      integer_list_field("group.ids", s.ids, {0}, ""),
      seconds_field("group.timeout", s.timeout, {1}, ""),
      idle("pippy", "not applicable: Python"),
      noted(integer_field("threads", s.count, {1}, ""), "not supported yet"),
  };
}

std::string filled_or_error(Sample& sample, const std::string& yaml) {
  const Result<Filled> filled = fill(fields_of(sample), parse_yaml(yaml, "f").value(), "f");
  return filled.ok() ? "ok" : filled.error().message();
}

TEST(Fields, FillEveryKindOfVariable) {
  Sample s;
  ASSERT_EQ(filled_or_error(s,
                            "count: 3\nseed: 9000000000\non: TRUE\nname: 12\ncolor: Green\n"
                            "group: {rate: 1e-3, paths: one, ids: [0, 7], timeout: 60}\n"),
            "ok");
  EXPECT_EQ(s.count, 3);
  EXPECT_EQ(s.seed, 9'000'000'000);
  EXPECT_TRUE(s.on);
  EXPECT_EQ(s.name, "12");
  EXPECT_EQ(s.color, Color::kGreen);
  EXPECT_EQ(s.rate, 1e-3);
  EXPECT_THAT(s.paths, ElementsAre("one"));
  EXPECT_THAT(s.ids, ElementsAre(0, 7));
  EXPECT_EQ(s.timeout, seconds(60));
}

TEST(Fields, SayFileLineKeyExpectedAndFound) {
  Sample s;
  EXPECT_EQ(filled_or_error(s, "\ncount: abc\n"), "f:2: key 'count': expected an integer from 1 to 10, found 'abc'");
  EXPECT_EQ(filled_or_error(s, "count: 11\n"), "f:1: key 'count': expected an integer from 1 to 10, found '11'");
  EXPECT_EQ(filled_or_error(s, "count: '2'\n"), "f:1: key 'count': expected an integer from 1 to 10, found the text '2'");
  EXPECT_EQ(filled_or_error(s, "count: 2.0\n"), "f:1: key 'count': expected an integer from 1 to 10, found '2.0'");
  EXPECT_EQ(filled_or_error(s, "count:\n"), "f:1: key 'count': expected an integer from 1 to 10, found nothing");
  EXPECT_EQ(filled_or_error(s, "count: [1]\n"), "f:1: key 'count': expected an integer from 1 to 10, found a list");
  EXPECT_EQ(filled_or_error(s, "count: {a: 1}\n"), "f:1: key 'count': expected an integer from 1 to 10, found a map");
  EXPECT_EQ(filled_or_error(s, "seed: 99999999999999999999\n"), "f:1: key 'seed': expected an integer >= 0, found '99999999999999999999'");
  EXPECT_EQ(filled_or_error(s, "on: yes\n"), "f:1: key 'on': expected true or false, found 'yes'");
  EXPECT_EQ(filled_or_error(s, "color: blue\n"), "f:1: key 'color': expected one of red, green, found 'blue'");
  EXPECT_EQ(filled_or_error(s, "group:\n  rate: 0\n"), "f:2: key 'group.rate': expected a number > 0 and <= 1, found '0'");
  EXPECT_EQ(filled_or_error(s, "group: {rate: nan}\n"), "f:1: key 'group.rate': expected a number > 0 and <= 1, found 'nan'");
  EXPECT_EQ(filled_or_error(s, "group: {paths: [a, '']}\n"),
            "f:1: key 'group.paths': expected text or a list of texts, none empty or longer than 20 bytes, found a list");
  EXPECT_EQ(filled_or_error(s, "name: 123456789012345678901\n"), "f:1: key 'name': expected text of at most 20 bytes, found '123456789012345678901'");
  EXPECT_THAT(filled_or_error(s, "group: {paths: [a, 123456789012345678901]}\n"), testing::HasSubstr("longer than 20 bytes, found a list"));
  EXPECT_EQ(filled_or_error(s, "group: {ids: [1, x]}\n"), "f:1: key 'group.ids': expected a list, each an integer >= 0, found a list");
  EXPECT_EQ(filled_or_error(s, "group: 3\n"), "f:1: key 'group': expected a map, found '3'");
  EXPECT_EQ(s.count, 1) << "a value that does not fit changes nothing";
}

TEST(Fields, NameTheNearestKnownKey) {
  Sample s;
  EXPECT_EQ(filled_or_error(s, "cuont: 1\n"), "f:1: unknown key 'cuont'; did you mean 'count'?");
  EXPECT_EQ(filled_or_error(s, "group: {path: a}\n"), "f:1: unknown key 'group.path'; did you mean 'group.paths'?");
  EXPECT_EQ(filled_or_error(s, "gruop: {rate: 1}\n"), "f:1: unknown key 'gruop'; did you mean 'group'?");
  EXPECT_EQ(filled_or_error(s, "timeout: 3\n"), "f:1: unknown key 'timeout'; did you mean 'group.timeout'?") << "right name, wrong place";
}

TEST(Fields, NoteWhatIsKnownButDoesNothing) {
  Sample s;
  const std::string yaml = "count: 2\npippy:\n  anything: {below: [1]}\non: true\nthreads: 3\n";
  const Result<Filled> filled = fill(fields_of(s), parse_yaml(yaml, "f").value(), "f");
  ASSERT_TRUE(filled.ok()) << filled.error().message();
  EXPECT_THAT(filled.value().notes, ElementsAre("f:2: pippy: not applicable: Python", "f:5: threads: not supported yet"));
  EXPECT_EQ(filled_or_error(s, "threads: many\n"), "f:1: key 'threads': expected an integer >= 1, found 'many'");
  EXPECT_EQ(filled.value().lines.at("on"), 4);
}

TEST(Fields, PrintWhatTheyReadBack) {
  Sample s, again;
  s.name = "quo\"te \\ \n end\xC3\xA9";
  s.paths = {"a b", "c,d"};
  s.ids = {3, 1};
  s.rate = 0.1;
  const std::string yaml = print_yaml(fields_of(s));
  ASSERT_EQ(filled_or_error(again, yaml), "ok") << yaml;
  EXPECT_EQ(print_yaml(fields_of(again)), yaml);
  EXPECT_EQ(again.name, s.name);
  EXPECT_EQ(again.paths, s.paths);
  EXPECT_EQ(yaml.substr(0, yaml.find("\n")), fmt::format("{:<40}  # how many", "count: 1"));
}

}  // namespace
}  // namespace penstock::config
