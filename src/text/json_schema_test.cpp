#include "text/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "text/grammar_case_test.h"

namespace penstock::text {
namespace {

using testing::HasSubstr;
using Json = nlohmann::json;
constexpr auto kSchema = TextConstraint::Kind::kJsonSchema;

// JSON Schema's own rules, as plainly as they can be written, of the keywords that the schemas of these tests have.
class Validator {
 public:
  explicit Validator(Json root) : root_(std::move(root)) {}
  bool valid(const Json& value) const { return valid(root_, value); }

 private:
  bool valid(const Json& schema, const Json& value) const {
    if (schema.is_boolean()) return schema.get<bool>();
    if (schema.contains("$ref")) return valid(root_.at(Json::json_pointer(schema["$ref"].get<std::string>().substr(1))), value);
    for (const char* all : {"anyOf", "oneOf"}) {
      if (!schema.contains(all)) continue;
      const auto count = std::count_if(schema[all].begin(), schema[all].end(), [&](const Json& branch) { return valid(branch, value); });
      if (std::string(all) == "oneOf" ? count != 1 : count < 1) return false;
    }
    if (schema.contains("const") && schema["const"] != value) return false;
    if (schema.contains("enum") && std::count(schema["enum"].begin(), schema["enum"].end(), value) == 0) return false;
    if (schema.contains("type")) {
      const Json types = schema["type"].is_array() ? schema["type"] : Json::array({schema["type"]});
      if (std::none_of(types.begin(), types.end(), [&](const Json& type) { return has_type(value, type); })) return false;
    }
    if (value.is_object()) return valid_object(schema, value);
    if (value.is_array()) return valid_array(schema, value);
    if (value.is_string()) return valid_string(schema, value.get<std::string>());
    if (value.is_number()) return valid_number(schema, value.get<double>());
    return true;
  }
  static bool has_type(const Json& value, const std::string& type) {
    if (type == "integer") return value.is_number_integer() || (value.is_number() && value.get<double>() == std::floor(value.get<double>()));
    return type == value.type_name() || (type == "number" && value.is_number());
  }
  bool valid_object(const Json& schema, const Json& value) const {
    for (const auto& name : schema.value("required", Json::array())) {
      if (!value.contains(name)) return false;
    }
    const Json properties = schema.value("properties", Json::object());
    for (const auto& [name, member] : value.items()) {
      if (!valid(properties.contains(name) ? properties[name] : schema.value("additionalProperties", Json(true)), member)) return false;
    }
    return true;
  }
  bool valid_array(const Json& schema, const Json& value) const {
    if (value.size() < schema.value("minItems", 0u) || value.size() > schema.value("maxItems", 1u << 30)) return false;
    const Json prefix = schema.value("prefixItems", Json::array());
    for (size_t i = 0; i < value.size(); ++i) {
      if (!valid(i < prefix.size() ? prefix[i] : schema.value("items", Json(true)), value[i])) return false;
    }
    return true;
  }
  static bool valid_string(const Json& schema, const std::string& value) {
    const auto length = static_cast<size_t>(std::count_if(value.begin(), value.end(), [](char c) { return (c & 0xC0) != 0x80; }));
    if (length < schema.value("minLength", 0u) || length > schema.value("maxLength", 1u << 30)) return false;
    return !schema.contains("pattern") || std::regex_search(value, std::regex(schema["pattern"].get<std::string>()));
  }
  static bool valid_number(const Json& schema, double value) {
    return value >= schema.value("minimum", -1e300) && value <= schema.value("maximum", 1e300) && value > schema.value("exclusiveMinimum", -1e300) &&
           value < schema.value("exclusiveMaximum", 1e300);
  }
  const Json root_;
};

const char* const kPerson = R"({"type": "object", "required": ["name", "age"], "properties": {
  "name": {"type": "string", "minLength": 1, "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
  "tags": {"type": "array", "items": {"enum": ["a", "b", 3, null, {"x": [1, 2]}]}, "maxItems": 3}, "note": {"type": ["string", "null"]}}})";
const char* const kTree = R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["value", "children"], "additionalProperties": false,
  "properties": {"value": {"type": "number"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}}})";
const char* const kOpen = R"({"type": "object", "properties": {"id": {"type": "integer"}, "i\"d": {"type": "boolean"}, "ié": {"type": "null"}}, "required": ["id"],
  "additionalProperties": {"type": "array", "items": {"type": "boolean"}}})";
const char* const kShapes = R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "circle"}, "r": {"type": "number", "minimum": 0}}, "required": ["kind", "r"]},
  {"$ref": "#/$defs/square"}, {"type": "null"}], "$defs": {"square": {"type": "object", "properties": {"kind": {"const": "square"}, "side": {"type": "integer",
  "exclusiveMinimum": 2.5, "exclusiveMaximum": 11}}, "required": ["kind", "side"]}}})";
const char* const kPatterns = R"({"type": "array", "prefixItems": [{"type": "string", "pattern": "^[a-f\"\\\\\\n]{2,5}$"}, {"type": "string", "pattern": "x[0-9]"}],
  "items": {"anyOf": [{"type": "boolean"}, {"type": "array", "maxItems": 2}]}, "minItems": 2, "maxItems": 5})";

TEST(JsonSchema, EveryTextParsesAndIsValid) {
  std::mt19937 random(5);
  for (const char* schema : {kPerson, kTree, kOpen, kShapes, kPatterns, "true", R"({"type": ["integer", "boolean"], "minimum": -12, "maximum": 5})",
                             R"({"properties": {"a": {"type": "string"}}, "required": ["b"]})", R"({"anyOf": [{"const": {"a": 1}}, {"type": "array", "minItems": 3}]})"}) {
    GrammarCase grammar(kSchema, schema);
    const Validator validator(Json::parse(schema));
    std::set<std::string> texts;
    for (int i = 0; i < 300; ++i) {
      const auto text = grammar.random_text(random, i % 3 == 0 ? 5 : 80);
      ASSERT_TRUE(text) << schema;
      const Json value = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
      ASSERT_FALSE(value.is_discarded()) << schema << " and " << *text;
      ASSERT_TRUE(validator.valid(value)) << schema << " and " << *text;
      texts.insert(*text);
    }
    EXPECT_GT(texts.size(), 2u) << schema;
  }
}

TEST(JsonSchema, AnyObjectParses) {
  std::mt19937 random(5);
  GrammarCase grammar(TextConstraint::Kind::kJsonObject, "");
  for (int i = 0; i < 300; ++i) {
    const auto text = grammar.random_text(random, static_cast<size_t>(i));
    ASSERT_TRUE(text);
    EXPECT_TRUE(Json::parse(*text, nullptr, false).is_object()) << *text;
  }
  for (const char* text : {"{}", "{\"a\": [1, -2.5e+3, \"\\u00e9\\ud83d\\ude00\"], \"b\": {\"c\": null}}", "{\n  \"a\": true\n}"}) EXPECT_TRUE(grammar.fits(text)) << text;
  for (const char* text : {"", "[]", "{\"a\"}", "{\"a\":01}", "{\"a\":1,}", "{\"a\":\"\\ud83d\"}", "{\"a\":\"\n\"}", "{\"a\":tru}", "{} "}) EXPECT_FALSE(grammar.fits(text)) << text;
}

TEST(JsonSchema, ValuesFitOrNot) {
  struct Row {
    const char* schema;
    std::vector<const char*> fits, others;
  };
  const std::vector<Row> rows = {
      {kPerson, {R"({"name": "é", "age": 130})", R"({"name":"Ann","age":7,"tags":["b",{"x":[1,2]}],"note":null})"},
       {R"({"name": "", "age": 1})", R"({"age": 1, "name": "x"})", R"({"name": "x", "age": 131})", R"({"name": "x", "age": 07})", R"({"name": "x"})", R"({"name": "x", "age": 1, "z": 1})",
        R"({"name": "123456789012345678901", "age": 1})", R"({"name": "x", "age": 1, "tags": [3, 3, 3, 3]})"}},
      {kTree, {R"({"value": 1.5, "children": [{"value": -2e3, "children": []}]})"}, {R"({"value": 1, "children": [1]})", R"({"value": "1", "children": []})"}},
      {kOpen, {R"({"id": 1, "idd": [true], "i": []})", R"({"id":1,"id2":[]})"}, {R"({"id": 1, "id": [true]})", R"({"id": 1, "x": 1})", R"({"id":1,"\u0069d":[]})"}},
      {kShapes, {R"({"kind": "circle", "r": 0.5})", R"({"kind": "square", "side": 3})", "null"}, {R"({"kind": "circle", "r": -1})", R"({"kind": "square", "side": 11})", R"({"kind": "square", "side": 2})"}},
      {kPatterns, {R"(["a\"", "abx1"])", R"(["\\\n", "x0", true, [1]])"}, {R"(["ax", "x1"])", R"(["aa", "x"])", R"(["aa"])"}},
      {R"({"type": "integer", "minimum": -105, "maximum": 1020})", {"-105", "-99", "-1", "0", "9", "999", "1019", "1020"}, {"-106", "1021", "1100", "-0", "00", "1.0"}},
      {R"({"type": "integer", "minimum": 17})", {"17", "99", "123456789012345678"}, {"16", "2", "-17"}},
      {R"({"type": "integer", "maximum": -3})", {"-3", "-10", "-44"}, {"-2", "3", "0"}},
      {R"({"enum": ["a", 1], "type": "string"})", {"\"a\""}, {"1"}},
      {R"({"type": "string", "format": "date"})", {"\"2024-02-28\"", "\"1999-12-31\""}, {"\"2024-02-30\"", "\"2024-13-01\"", "\"x\""}},
      {R"({"type": "string", "format": "date-time"})", {"\"2024-02-28T23:59:59Z\"", "\"2024-02-28T00:00:00.5+02:00\""}, {"\"2024-02-28\""}},
      {R"({"type": "string", "format": "ipv4"})", {"\"255.0.10.199\""}, {"\"256.0.0.1\"", "\"1.2.3\""}},
      {R"({"type": "string", "format": "email"})", {"\"a.b@example.org\""}, {"\"a.b\""}},
      {R"({"type": "array", "items": false, "prefixItems": [{"type": "null"}]})", {"[]", "[null]", "[ null ]"}, {"[null,null]", "[1]"}},
      {R"({"type": "array", "items": {"type": "boolean"}, "minItems": 2})", {"[true,false]", "[true, true, true]"}, {"[true]", "[]"}},
      {R"({"type": "array", "maxItems": 0})", {"[]"}, {"[1]"}},
      {R"({"type": "object", "required": ["z"]})", {R"({"z": [1]})"}, {"{}", R"({"y": 1})"}},
      {R"({"title": "anything", "not": {"a": 1}, "type": "null", "default": 3})", {}, {}},
  };
  for (const Row& row : rows) {
    if (row.fits.empty()) continue;
    GrammarCase grammar(kSchema, row.schema);
    for (const char* text : row.fits) EXPECT_TRUE(grammar.fits(text)) << row.schema << " and " << text;
    for (const char* text : row.others) EXPECT_FALSE(grammar.fits(text)) << row.schema << " and " << text;
  }
}

TEST(JsonSchema, RecursionEndsBeforeItIsTooDeep) {
  GrammarCase grammar(kSchema, kTree);
  std::string opened;
  for (int depth = 0; depth < 200 && grammar.fits(opened + "{\"value\":1,\"children\":[]}" + [&] {
         std::string closed;
         for (int i = 0; i < depth; ++i) closed += "]}";
         return closed;
       }()); ++depth) {
    opened += "{\"value\":1,\"children\":[";
  }
  EXPECT_GT(opened.size(), 40u * 23);
  EXPECT_LT(opened.size(), 130u * 23);
}

TEST(JsonSchema, WhatIsNotSupportedIsNamedWithItsPlace) {
  const std::vector<std::pair<const char*, const char*>> rows = {
      {R"({"properties": {"a": {"not": {}}}})", "#/properties/a: the keyword 'not' is not supported"},
      {R"({"type": "array", "items": {"type": "array", "uniqueItems": true}})", "#/items: the keyword 'uniqueItems'"},
      {R"({"type": "number", "multipleOf": 2})", "#: the keyword 'multipleOf'"},
      {R"({"type": "number", "maximum": 2})", "#: the keyword 'maximum' is not supported; of numbers \"minimum\": 0 is"},
      {R"({"patternProperties": {"a": {}}})", "the keyword 'patternProperties'"},
      {R"({"allOf": [{}, {}]})", "the keyword 'allOf' is not supported; one schema"},
      {R"({"anyOf": [{"type": "null"}], "minLength": 1})", "#: 'minLength' beside 'anyOf'"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "#: oneOf: a value might fit both schema 0 and schema 1"},
      {R"({"type": "string", "format": "idn-email"})", "#: format: \"idn-email\" is not supported; expected one of date, time"},
      {R"x({"type": "string", "pattern": "(?=a)"})x", "#: pattern: lookahead at byte 0"},
      {R"({"type": "string", "pattern": "a", "minLength": 3})", "'minLength' beside 'pattern'"},
      {R"({"type": "text"})", "#: type: expected object, array"},
      {R"({"$ref": "#/$defs/x"})", "#: $ref: there is no #/$defs/x"},
      {R"({"$ref": "https://example.org/x.json"})", "#: $ref: expected a place in this schema"},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})", "no text fits"},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})", "no text fits"},
      {R"({"type": "object", "required": ["a"], "additionalProperties": false})", "required: \"a\" is not among properties"},
      {R"({"enum": []})", "no text fits"},
      {R"({"type": "string", "minLength": -1})", "#: minLength: expected an integer"},
      {R"({"type": "integer", "minimum": 5, "maximum": 4})", "no text fits"},
      {R"({"type": "array", "items": [{}]})", "the keyword 'items' is not supported; a list of schemas is called prefixItems"},
      {R"([1])", "#: expected a schema, found array"},
      {R"({"properties": )", "expected JSON"},
  };
  for (const auto& [schema, message] : rows) EXPECT_THAT(refusal_of(kSchema, schema), HasSubstr(message)) << schema;
}

// `count` branches that require the same 18 members, of values that `first` and `second` allow by turns.
std::string one_of_with_shared_members(int count, const std::string& first, const std::string& second) {
  std::string branches;
  for (int i = 0; i < count; ++i) {
    std::string members, required;
    for (int k = 0; k < 18; ++k) {
      members += fmt::format(R"("m{}": {{"$ref": "#/$defs/{}"}}, )", k, i % 2 == 0 ? "x" : "y");
      required += fmt::format("\"m{}\", ", k);
    }
    branches += fmt::format(R"({}{{"type": "object", "properties": {{{}"kind": {{"const": {}}}}}, "required": [{}"kind"]}})", i == 0 ? "" : ",", members, i, required);
  }
  return fmt::format(R"({{"oneOf": [{}], "$defs": {{"x": {{"enum": [{}]}}, "y": {{"enum": [{}]}}}}}})", branches, first, second);
}

TEST(JsonSchema, ManyAlternativesWithManySharedValuesAreComparedWithinBounds) {
  std::string ones = "1", odd, even;
  for (int i = 0; i < 5'000; ++i) ones += ",1";
  EXPECT_TRUE(constraint_grammar({kSchema, one_of_with_shared_members(40, ones, ones)})) << "each value counts once";
  for (int i = 1; i < 2'000; i += 2) {
    odd += fmt::format("{},", i);
    even += fmt::format("{},", i + 1);
  }
  EXPECT_THAT(refusal_of(kSchema, one_of_with_shared_members(46, odd + "9999", even + "9999")), HasSubstr("oneOf: too many members and values to compare"));
}

TEST(JsonSchema, WhatExplodesIsRefused) {
  const std::vector<std::string> schemas = {
      R"({"type": "string", "maxLength": 1000000000})",
      R"({"type": "array", "items": {"type": "null"}, "minItems": 500000})",
      R"({"type": "string", "pattern": "((a{999}){999}){999}"})",
      R"({"type": "array", "prefixItems": [{"type": "string", "minLength": 60000}, {"type": "string", "minLength": 60001}]})",
  };
  for (const auto& schema : schemas) EXPECT_THAT(refusal_of(kSchema, schema), HasSubstr("expected fewer or smaller repetitions")) << schema;
  std::string patterns = R"({"anyOf": [{"const": 1})";  // each almost within the limit, and without states
  for (int i = 0; i < 20; ++i) patterns += R"(, {"type": "string", "pattern": "^((){999}){99}$"})";
  EXPECT_THAT(refusal_of(kSchema, patterns + "]}"), HasSubstr("repetitions within each other make it too large"));
  std::string deep(200, '[');
  EXPECT_THAT(refusal_of(kSchema, deep), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(refusal_of(kSchema, std::string(100'000, ' ')), HasSubstr("expected at most 65536 bytes"));
  std::string chain = R"({"$ref": "#/$defs/a0", "$defs": {)";  // references one after the other take no stack
  for (int i = 0; i < 2000; ++i) chain += fmt::format(R"("a{}": {{"$ref": "#/$defs/a{}"}}, )", i, i + 1);
  chain += R"("a2000": {"const": 1}}})";
  const std::string refusal = refusal_of(kSchema, chain);
  EXPECT_TRUE(refusal.empty() || refusal.find("65536") != std::string::npos) << refusal;
}

}  // namespace
}  // namespace penstock::text
