#pragma once
// The fields of request bodies that say what the text must be: OpenAI's and vLLM's. For the .cpp files of this folder.
#include <nlohmann/json.hpp>

#include <string_view>

#include "text/text_constraint.h"

namespace penstock::text {

// {"type": "text" | "json_object" | "json_schema", "json_schema": {"schema": ...}}; a schema; a pattern; texts; an object with one of them.
inline constexpr std::string_view kConstraintFields[] = {"response_format", "guided_json", "guided_regex", "guided_choice", "structured_outputs"};

// The constraint of a body, which is an object with its members in their order; kNone: it has none. Throws OpenAiRefusal: a field that is wrong, two
// constraints at once, one that constraint_grammar() refuses.
[[nodiscard]] TextConstraint read_constraint(const nlohmann::ordered_json& body);

}  // namespace penstock::text
