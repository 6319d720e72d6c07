#include "text/openai_tools.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "base/utf8.h"
#include "text/grammar.h"
#include "text/json_input.h"
#include "text/json_schema.h"
#include "text/openai_fields.h"
#include "text/tool_call_reader.h"

namespace penstock::text {
namespace {

using Json = nlohmann::ordered_json;
using Choice = ToolUse::Choice;

constexpr size_t kMaxTools = 512;
constexpr size_t kMaxNameBytes = 256;

[[noreturn]] void refuse(const std::string& place, const std::string& why, const char* code = "invalid_value") {
  throw OpenAiRefusal{fmt::format("{}: {}", place, why), place, code};
}

// nullptr: absent or null.
const Json* member(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string found_text(const Json* value) { return value ? shown(nlohmann::json(*value)) : "nothing"; }

void check_tool(const Json& tool, const std::string& place) {
  if (!tool.is_object()) refuse(place, fmt::format("expected an object, found {}", found_text(&tool)));
  const Json* type = member(tool, "type");
  if (type == nullptr || *type != "function") refuse(place + ".type", fmt::format("expected function, found {}", found_text(type)));
  const Json* function = member(tool, "function");
  if (function == nullptr || !function->is_object()) refuse(place + ".function", fmt::format("expected an object, found {}", found_text(function)));
  const Json* name = member(*function, "name");
  const bool named = name && name->is_string() && !name->get_ref<const std::string&>().empty() && name->get_ref<const std::string&>().size() <= kMaxNameBytes;
  if (!named) refuse(place + ".function.name", fmt::format("expected a text of 1 to {} bytes, found {}", kMaxNameBytes, found_text(name)));
  const Json* parameters = member(*function, "parameters");
  if (parameters && !parameters->is_object()) refuse(place + ".function.parameters", fmt::format("expected a JSON schema, found {}", found_text(parameters)));
}

const std::string& name_of(const Json& tool) { return tool.at("function").at("name").get_ref<const std::string&>(); }

// Without parameters a function takes none.
Json parameters_of(const Json& tool) {
  const Json* parameters = member(tool.at("function"), "parameters");
  return parameters && !parameters->empty() ? *parameters : Json{{"type", "object"}, {"properties", Json::object()}};
}

// References to places in a schema that has become a part of another one, at `place`. `named`: its keys are names of schemas, not keywords.
void move_references(Json& schema, const std::string& place, bool named = false) {
  if (schema.is_array()) {
    for (Json& item : schema) move_references(item, place);
  }
  if (!schema.is_object()) return;
  for (auto& [key, value] : schema.items()) {
    if (!named && key == "$ref" && value.is_string() && value.get_ref<const std::string&>().starts_with('#')) {
      value = place + value.get_ref<const std::string&>().substr(1);
    } else if (named || (key != "const" && key != "enum" && key != "default" && key != "examples")) {  // those hold values
      move_references(value, place, !named && (key == "properties" || key == "$defs" || key == "definitions"));
    }
  }
}

TextConstraint checked_constraint(const Json& schema, const std::string& place) {
  TextConstraint constraint{TextConstraint::Kind::kJsonSchema, schema.dump()};
  if (const auto grammar = constraint_grammar(constraint); !grammar) refuse(place, grammar.error().message());
  return constraint;
}

constexpr size_t kTriedTools = 16;

// The text is a list of calls: [{"name": ..., "parameters": ...}].
TextConstraint calls_constraint(const Json& tools, bool parallel) {
  size_t bytes = 0;
  for (const Json& tool : tools) bytes += parameters_of(tool).dump().size();
  if (bytes > kMaxSchemaBytes) refuse("tools", fmt::format("parameters of {} bytes in all; expected at most {} bytes where a call is demanded", bytes, kMaxSchemaBytes));
  Json calls = Json::array();
  for (size_t i = 0; i < tools.size(); ++i) {
    Json parameters = parameters_of(tools[i]);
    move_references(parameters, fmt::format("#/items/anyOf/{}/properties/parameters", i));
    calls.push_back({{"type", "object"},
                     {"properties", {{"name", {{"const", name_of(tools[i])}}}, {"parameters", std::move(parameters)}}},
                     {"required", {"name", "parameters"}}});
  }
  const Json schema = {{"type", "array"}, {"items", {{"anyOf", std::move(calls)}}}, {"minItems", 1}, {"maxItems", parallel ? kMaxToolCalls : 1}};
  TextConstraint constraint{TextConstraint::Kind::kJsonSchema, schema.dump()};
  const auto grammar = constraint_grammar(constraint);
  if (grammar) return constraint;
  for (size_t i = 0; i < std::min(tools.size(), kTriedTools); ++i) {  // whose it is, if it is the first ones'; a look at each takes its time
    (void)checked_constraint(parameters_of(tools[i]), fmt::format("tools[{}].function.parameters", i));
  }
  refuse("tools", grammar.error().message());
}

const Json& tool_called(const Json& tools, const std::string& name) {
  const auto found = std::find_if(tools.begin(), tools.end(), [&](const Json& tool) { return name_of(tool) == name; });
  if (found == tools.end()) refuse("tool_choice", fmt::format("there is no tool '{}'", utf8_prefix(name, 64)));
  return *found;
}

// {"type": "function", "function": {"name": ...}}.
std::string named_choice(const Json& choice) {
  const Json* type = member(choice, "type");
  if (type == nullptr || *type != "function") {
    refuse("tool_choice.type", fmt::format("{} is not supported; expected function", found_text(type)), "unsupported_value");
  }
  const Json* function = member(choice, "function");
  const Json* name = function && function->is_object() ? member(*function, "name") : nullptr;
  if (name == nullptr || !name->is_string()) refuse("tool_choice", fmt::format("expected {{\"type\": \"function\", \"function\": {{\"name\": ...}}}}, found {}", found_text(&choice)));
  return name->get<std::string>();
}

ToolUse::Choice read_choice(const Json* choice, bool has_tools, std::string& function) {
  if (choice == nullptr) return has_tools ? Choice::kAuto : Choice::kNone;
  if (*choice == "none") return Choice::kNone;
  if (*choice == "auto") return has_tools ? Choice::kAuto : Choice::kNone;
  if (*choice != "required" && !choice->is_object()) {
    refuse("tool_choice", fmt::format("expected none, auto, required or {{\"type\": \"function\", \"function\": {{\"name\": ...}}}}, found {}", found_text(choice)));
  }
  if (choice->is_object()) function = named_choice(*choice);
  if (!has_tools) refuse("tool_choice", "there are no tools; expected none or auto");
  return choice->is_object() ? Choice::kNamed : Choice::kRequired;
}

}  // namespace

void take_tools(const Json& body, bool constrained, OpenAiCall& call) {
  const Json* tools = member(body, "tools");
  if (tools && (!tools->is_array() || tools->size() > kMaxTools)) refuse("tools", fmt::format("expected a list of at most {} tools, found {}", kMaxTools, found_text(tools)));
  for (size_t i = 0; tools && i < tools->size(); ++i) check_tool((*tools)[i], fmt::format("tools[{}]", i));
  ToolUse& use = call.tool_use;
  use.choice = read_choice(member(body, "tool_choice"), tools && !tools->empty(), use.function);
  if (use.choice == Choice::kNone) return;
  call.tools = tools->dump();
  if (use.choice == Choice::kAuto) return;
  if (constrained) refuse("tool_choice", "a call that must be made does not go with response_format or another constraint; expected auto, or none of those");
  if (use.choice == Choice::kRequired) {
    call.sampling.constraint = calls_constraint(*tools, use.parallel);
    return;
  }
  const Json& tool = tool_called(*tools, use.function);
  call.sampling.constraint = checked_constraint(parameters_of(tool), fmt::format("tools[{}].function.parameters", &tool - &(*tools)[0]));
}

}  // namespace penstock::text
