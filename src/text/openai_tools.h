#pragma once
// What a chat completion says of tools. For the .cpp files of this folder.
#include <nlohmann/json.hpp>

#include "text/openai_request.h"

namespace penstock::text {

// Takes `tools` and `tool_choice` of a body, which is an object with its members in their order, into the call: tools for the template, how the model is to
// use them, and the constraint of a call that is demanded. `constrained`: the body has a constraint of its own.
// Throws OpenAiRefusal naming the place, "tools[2].function.name: ...".
void take_tools(const nlohmann::ordered_json& body, bool constrained, OpenAiCall& call);

}  // namespace penstock::text
