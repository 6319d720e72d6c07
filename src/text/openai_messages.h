#pragma once
// The messages of a chat completion, checked and brought into the form that chat templates know. For the .cpp files of this folder.
#include <nlohmann/json.hpp>

namespace penstock::text {

// REQUIRES: a list. Afterwards each message has "role" (`developer` has become `system`, whose newer name it is, for templates do not know it)
// and "content", a text: parts of type "text" are joined by line ends, as other servers do, and null has become "". Arguments of tool calls
// that are the text of a JSON object have become that object, which is what templates expect.
// Throws OpenAiRefusal naming the place: "messages[2].content[0].type: ...".
void check_openai_messages(nlohmann::ordered_json& messages);

}  // namespace penstock::text
