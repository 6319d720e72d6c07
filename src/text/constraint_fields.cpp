#include "text/constraint_fields.h"

#include <optional>

#include "base/utf8.h"
#include "text/grammar.h"
#include "text/json_input.h"
#include "text/openai_fields.h"

namespace penstock::text {
namespace {

using Json = nlohmann::ordered_json;
using Kind = TextConstraint::Kind;

[[noreturn]] void refuse(std::string_view field, std::string_view expected, const Json& found) {
  throw out_of_range(field, expected, nlohmann::json::parse(found.dump()));
}

[[noreturn]] void refuse_unsupported(std::string_view field, std::string_view what, std::string_view instead) {
  throw OpenAiRefusal{fmt::format("{}: {} is not supported; expected {}", field, utf8_prefix(what, 64), instead), std::string(field), "unsupported_value"};
}

TextConstraint schema_constraint(std::string_view field, const Json& schema) {
  if (schema.is_string()) return {Kind::kJsonSchema, schema.get<std::string>()};  // as vLLM takes it, too
  if (!schema.is_object() && !schema.is_boolean()) refuse(field, "a JSON schema", schema);
  return {Kind::kJsonSchema, schema.dump()};
}

TextConstraint response_format(const Json& format) {
  constexpr std::string_view kField = "response_format";
  constexpr std::string_view kExpected = "{\"type\": \"text\"}, {\"type\": \"json_object\"} or {\"type\": \"json_schema\", \"json_schema\": {\"schema\": ...}}";
  const auto type = format.is_object() ? format.find("type") : format.end();
  if (!format.is_object() || type == format.end() || !type->is_string()) refuse(kField, kExpected, format);
  if (*type == "text") return {};
  if (*type == "json_object") return {Kind::kJsonObject};
  if (*type != "json_schema") refuse_unsupported(kField, type->dump(), kExpected);
  const auto given = format.find("json_schema");
  if (given == format.end() || !given->is_object()) refuse(kField, kExpected, format);
  const auto schema = given->find("schema");
  if (schema == given->end()) refuse(kField, kExpected, format);
  return schema_constraint(kField, *schema);
}

TextConstraint regex_constraint(std::string_view field, const Json& pattern) {
  if (!pattern.is_string()) refuse(field, "a regular expression", pattern);
  return {Kind::kRegex, pattern.get<std::string>()};
}

TextConstraint choice_constraint(std::string_view field, const Json& choices) {
  if (!choices.is_array()) refuse(field, "a list of texts", choices);
  return {Kind::kChoice, choices.dump()};
}

TextConstraint structured_outputs(const Json& outputs) {
  constexpr std::string_view kField = "structured_outputs", kExpected = "one of json, regex, choice and \"json_object\": true";
  if (!outputs.is_object()) refuse(kField, "an object with " + std::string(kExpected), outputs);
  std::optional<TextConstraint> found;
  for (const auto& [name, value] : outputs.items()) {
    if (value.is_null() || value == false) continue;
    if (found) throw OpenAiRefusal{"structured_outputs: expected one constraint, found several", std::string(kField), "invalid_value"};
    if (name == "json") found = schema_constraint(kField, value);
    else if (name == "regex") found = regex_constraint(kField, value);
    else if (name == "choice") found = choice_constraint(kField, value);
    else if (name == "json_object" && value == true) found = {Kind::kJsonObject};
    else refuse_unsupported(kField, name, kExpected);
  }
  return found.value_or(TextConstraint{});
}

TextConstraint read_field(std::string_view field, const Json& value) {
  if (field == "response_format") return response_format(value);
  if (field == "guided_json") return schema_constraint(field, value);
  if (field == "guided_regex") return regex_constraint(field, value);
  if (field == "guided_choice") return choice_constraint(field, value);
  return structured_outputs(value);
}

}  // namespace

TextConstraint read_constraint(const Json& body) {
  TextConstraint result;
  std::string_view field;
  for (const std::string_view name : kConstraintFields) {
    const auto found = body.find(name);
    if (found == body.end() || found->is_null()) continue;
    TextConstraint constraint = read_field(name, *found);
    if (!constraint) continue;
    if (result) throw OpenAiRefusal{fmt::format("{}: does not go with {}; expected one constraint", name, field), std::string(name), "invalid_value"};
    result = std::move(constraint);
    field = name;
  }
  if (!result) return result;
  if (const auto grammar = constraint_grammar(result); !grammar) {
    throw OpenAiRefusal{fmt::format("{}: {}", field, grammar.error().message()), std::string(field), "invalid_value"};
  }
  return result;
}

}  // namespace penstock::text
