#include "config/yaml_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::config {
namespace {

using testing::HasSubstr;

// One line a value: "key@line kind items".
std::string render(const std::vector<RawValue>& values) {
  constexpr const char* kKinds[] = {"scalar", "list", "map", "nothing", "nested"};
  std::string out;
  for (const RawValue& v : values) {
    out +=
        fmt::format("{}@{} {}{} {}\n", v.key, v.line, v.quoted ? "quoted " : "", kKinds[static_cast<int>(v.kind)], fmt::join(v.items, "|"));
  }
  return out;
}

std::string refusal(const std::string& yaml) {
  const Result<std::vector<RawValue>> result = parse_yaml(yaml, "f.yaml");
  if (result.ok()) return "accepted";
  EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
  return result.error().message();
}

TEST(YamlReader, ListsEveryKeyWithItsLine) {
  const std::string yaml = "# comment\na: 1\nb:\n  c: 'x y'\n  d: [1, two]\n  e:\n    f: ~\ng:\n  - x\n  - y\n";
  EXPECT_EQ(render(parse_yaml(yaml, "f").value()),
            "a@2 scalar 1\nb@3 map \nb.c@4 quoted scalar x y\nb.d@5 list 1|two\nb.e@6 map \nb.e.f@7 nothing \ng@8 list x|y\n");
}

TEST(YamlReader, TakesAnEmptyDocumentAsNoKeys) {
  EXPECT_EQ(render(parse_yaml("", "f").value()), "");
  EXPECT_EQ(render(parse_yaml("# only a comment\n", "f").value()), "");
  EXPECT_EQ(render(parse_yaml("---\n", "f").value()), "");
}

TEST(YamlReader, MarksListsOfMapsAndGoesOnAfterThem) {
  EXPECT_EQ(render(parse_yaml("a:\n  - b: 1\n    c: [2]\n  - [3]\nd: 4\n", "f").value()), "a@1 nested \nd@5 scalar 4\n");
}

TEST(YamlReader, RefusesAKeyGivenTwice) {
  EXPECT_EQ(refusal("a:\n  b: 1\n  c: 2\n  b: 3\n"), "f.yaml:4: key 'a.b' is given twice");
  EXPECT_EQ(refusal("a: 1\na: {b: 2}\n"), "f.yaml:2: key 'a' is given twice");
}

TEST(YamlReader, DoesNotTakeADotForAMapInsideAMap) { EXPECT_EQ(render(parse_yaml("a.b: 1\n", "f").value()), "\"a.b\"@1 scalar 1\n"); }

TEST(YamlReader, RefusesWhatIsNotAMapOfPlainValues) {
  EXPECT_THAT(refusal("- a\n"), HasSubstr("f.yaml:1: expected a map of keys, found a list"));
  EXPECT_THAT(refusal("just text\n"), HasSubstr("f.yaml:1: expected a map of keys, found text"));
  EXPECT_THAT(refusal("a: &x 1\nb: *x\n"), HasSubstr("f.yaml:1: anchors"));
  EXPECT_THAT(refusal("a: !!python/object:os.system x\n"), HasSubstr("f.yaml:1: tags"));
  EXPECT_THAT(refusal("? [a, b]\n: 1\n"), HasSubstr("f.yaml:1: expected a key"));
  EXPECT_THAT(refusal("a: 1\n---\nb: 2\n"), HasSubstr("expected one document"));
}

TEST(YamlReader, SaysWhereTheSyntaxBreaks) {
  EXPECT_THAT(refusal("a: 1\nb: [1, 2\nc: 3\n"), HasSubstr("f.yaml:3: not valid YAML"));
  EXPECT_THAT(refusal("a: 1\n\tb: 2\n"), HasSubstr("f.yaml:"));
}

TEST(YamlReader, RefusesDepthAndSize) {
  std::string deep = "a: ";
  for (int i = 0; i < 100'000; ++i) deep += '[';
  EXPECT_THAT(refusal(deep), HasSubstr("nested deeper than 16"));
  std::string deep_in_list = "a: [";
  for (int i = 0; i < 100'000; ++i) deep_in_list += "{b: ";
  EXPECT_THAT(refusal(deep_in_list), HasSubstr("nested deeper than 16"));
  EXPECT_THAT(refusal(std::string(kConfigFileLimit + 1, '#')), HasSubstr("larger than the limit"));
}

TEST(YamlReader, ABombOfAliasesEndsAtItsFirstAnchor) {
  std::string laughs = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n";
  for (int i = 1; i < 30; ++i) laughs += fmt::format("a{0}: &a{0} [*a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}]\n", i, i - 1);
  EXPECT_EQ(refusal(laughs), "f.yaml:1: anchors (&name) are not supported; write the value out");
  EXPECT_THAT(refusal("a: {b: 1}\nc: {<<: *d}\n"), HasSubstr("f.yaml:2: "));
  EXPECT_THAT(refusal("a: &self [*self]\n"), HasSubstr("f.yaml:1: anchors"));
}

TEST(YamlReader, EverySingleByteChangeOfAFileIsAnsweredNotThrown) {
  const std::string yaml = "a: 1\nb:\n  c: 'x'\n  d: [1, 2]\ne: \"q\"\n";
  for (size_t at = 0; at < yaml.size(); ++at) {
    for (const char byte :
         {'\0', '\t', '\n', ' ', '"', '\'', '#', '%', '&', '*', ',', '-', ':', '?', '[', ']', '{', '|', '}', '\x80', '\xff'}) {
      std::string changed = yaml;
      changed[at] = byte;
      EXPECT_NO_THROW(static_cast<void>(parse_yaml(changed, "f").ok())) << changed;
    }
  }
}

TEST(YamlReader, SaysThatAFileIsAbsent) { EXPECT_EQ(read_yaml("/nowhere/x.yaml").error().code(), Code::kNotFound); }

}  // namespace
}  // namespace penstock::config
